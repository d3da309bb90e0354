"""Signed heads: what a service says about its chains outside of its database.

One JSON object a line in `DATA_DIR/audit/<service>-heads.jsonl`, and the same in the log. Who can write to the database
can recompute a chain; only who has the service's key can sign where it was.
"""

import base64
import fcntl
import json
import os
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from services.shared.audit.chain import Head
from services.shared.tokens import ServiceIdentity

_ALGORITHM = ec.ECDSA(SHA256())
# Heads of one chain that are compared with it. The latest vouches for all events before it, through their hashes.
_COMPARED = 32
_MAX_LINE = 4096

_log = structlog.get_logger()


class Signatures:
    """Signs with the service's identity key, ES256; signatures are DER in base64."""

    def __init__(self, identity: ServiceIdentity) -> None:
        self.service = identity.name
        self._key = identity.key
        self._public = identity.key.public_key()

    def sign(self, statement: bytes) -> str:
        return base64.b64encode(self._key.sign(statement, _ALGORITHM)).decode()

    def is_signed(self, statement: bytes, signature: str) -> bool:
        try:
            self._public.verify(base64.b64decode(signature), statement, _ALGORITHM)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head as it stands in the file; whether its signature is good, nobody has looked."""

    head: Head
    signature: str

    def line(self) -> str:
        head = self.head
        columns = {
            "service": head.service,
            "chain": head.chain,
            "sequence": head.sequence,
            "hash": head.hash.hex(),
            "time": head.time,
            "is_final": head.is_final,
            "signature": self.signature,
        }
        return json.dumps(columns, separators=(",", ":"))

    @classmethod
    def parse(cls, line: str) -> "SignedHead | None":
        """None for what a crash or somebody else left in the file."""
        try:
            columns = json.loads(line)
            head = Head(
                str(columns["service"]),
                str(columns["chain"]),
                int(columns["sequence"]),
                bytes.fromhex(columns["hash"]),
                int(columns["time"]),
                bool(columns["is_final"]),
            )
            return cls(head, str(columns["signature"]))
        except (ValueError, KeyError, TypeError):
            return None


class HeadsFile:
    """The heads that processes with this data folder signed; lines are appended, never changed."""

    def __init__(self, folder: Path, signatures: Signatures) -> None:
        self._file = folder / f"{signatures.service}-heads.jsonl"
        self._signatures = signatures

    def append(self, head: Head) -> None:
        """Signs a head, and returns when it is on disk. Raises OSError."""
        signed = SignedHead(head, self._signatures.sign(head.statement()))
        _log.info("audit.head", **json.loads(signed.line()))
        is_new = not self._file.exists()
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            # A line that a crash cut short ends here, so that it spoils no other.
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, (b"\n" if torn else b"") + signed.line().encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_folder(self._file.parent)

    def latest(self) -> dict[str, deque[SignedHead]]:
        """The last heads of every chain, by chain."""
        found: dict[str, deque[SignedHead]] = defaultdict(lambda: deque(maxlen=_COMPARED))
        for signed in self._lines():
            found[signed.head.chain].append(signed)
        return found

    def is_signed(self, signed: SignedHead) -> bool:
        """Whether the service signed this head."""
        return self._signatures.is_signed(signed.head.statement(), signed.signature)

    def _lines(self) -> Iterator[SignedHead]:
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            while line := file.readline(_MAX_LINE):
                signed = SignedHead.parse(line.decode(errors="replace"))
                if signed is not None and signed.head.service == self._signatures.service:
                    yield signed


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
