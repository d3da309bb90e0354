"""The folder of an installation's certificates: `DIR/pki`.

    authority.pem   the authority's key and certificate; only who makes certificates needs it
    ca.pem          the authorities that parts and callers trust: one, or two while one follows another
    edge.pem        what callers are shown; key and certificate in one file, so that both change in one step
    gateway.pem, auth.pem, models.pem, secrets.pem   by what the parts know each other

Each file is replaced as a whole, and in an order in which whoever reads at any moment finds nothing that the others do
not trust: first who is to be trusted, then, after every part has looked again, what they are to trust.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from strongroom import certificates
from strongroom.certificates import PARTS, CertificateError, Pair, read_certificates, read_pair
from strongroom.local import authority
from strongroom.local.authority import EDGE, LEAF_LIFE, Authority, private_pem
from strongroom.local.errors import StartError
from strongroom.local.layout import write_private

DIRECTORY = "STRONGROOM_PKI_DIR"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
HOLDERS = (EDGE, *PARTS)
# Seconds in which every part has looked at its files again: they do so each second.
SPREAD_SECONDS = 4.0


class Busy(Exception):
    """Somebody else makes certificates."""


@dataclass(frozen=True)
class Shown:
    """One certificate, for people. `note` says what is wrong with it; empty if nothing is."""

    holder: str
    names: tuple[str, ...]
    expires: datetime
    note: str


class Pki:
    """The certificates in one folder. One process at a time changes them.

    Args:
        pause: waits so many seconds.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._pause = pause

    @property
    def authorities(self) -> Path:
        """What callers get, so that they know whom to trust."""
        return self.folder / "ca.pem"

    def of(self, holder: str) -> Path:
        """The file with the key and the certificate of a part or of the edge."""
        return self.folder / f"{holder}.pem"

    @property
    def exists(self) -> bool:
        return self.authorities.exists()

    def init(self, hosts: Sequence[str]) -> None:
        """Makes an authority and everything of it. Raises StartError if there is one, or if a host is none.

        One that was cut off can be repeated.
        """
        names = _hosts(hosts)
        self._create()
        with self._locked():
            if self._own.exists() and all(self.of(holder).exists() for holder in HOLDERS):
                raise StartError(f"{self.folder} holds certificates already. To renew them: strongroom pki rotate")
            made = self._load() if self._own.exists() else Authority.make(names, self._clock())
            self._trust([made.certificate])
            self._keep(made)
            self._issue(made, names)

    def rotate(self, hosts: Sequence[str] = ()) -> None:
        """New keys and certificates for all, of the same authority; `hosts` become the edge's if there are any.

        Raises StartError, as all of these.
        """
        with self._locked():
            own = self._load()
            names = _hosts(hosts) if hosts else self._edge_names()
            if not own.speaks_for(names):
                raise StartError("The authority does not speak for these hosts. A new one does: give --authority too.")
            self._trust([own.certificate, *self._elder(own)])
            self._issue(own, names)

    def rotate_authority(self, hosts: Sequence[str] = (), *, distrust: bool = False) -> None:
        """A new authority and new certificates. The old one is trusted until none of its certificates is good any more;
        with `distrust` only until all parts have theirs.
        """
        with self._locked():
            names = _hosts(hosts) if hosts else self._edge_names()
            made = Authority.make(names, self._clock())
            self._trust([made.certificate, *read_certificates(self.authorities)])
            self._pause(SPREAD_SECONDS)
            self._keep(made)
            self._issue(made, names)
            if distrust:
                self._pause(SPREAD_SECONDS)
                self._trust([made.certificate])

    def renew(self) -> list[str]:
        """Replaces what is missing or soon at its end; the holders. Does nothing where the authority is elsewhere, or
        while somebody else makes certificates.
        """
        if not self._own.exists() or not self._due():
            return []
        try:
            with self._locked(fcntl.LOCK_NB):
                own, due = self._load(), self._due()
                self._issue(own, self._edge_names(), due)
                return due
        except Busy:
            return []

    def show(self) -> list[Shown]:
        """What is there, the authorities first."""
        now = self._clock()
        found = [
            Shown("authority", (), one.not_valid_after_utc, _expired(one, now))
            for one in read_certificates(self.authorities)
        ]
        for holder in HOLDERS:
            if not self.of(holder).exists():
                continue
            try:
                leaf = read_pair(self.of(holder), now=datetime.min.replace(tzinfo=UTC)).leaf
            except CertificateError as error:
                found.append(Shown(holder, (), now, str(error)))
                continue
            found.append(Shown(holder, tuple(authority.names_in(leaf)), leaf.not_valid_after_utc, self._note(leaf)))
        return found

    def _note(self, leaf: x509.Certificate) -> str:
        if expired := _expired(leaf, self._clock()):
            return expired
        trusted = any(authority.issued(one, leaf) for one in read_certificates(self.authorities))
        return "" if trusted else "of an authority that is not trusted"

    def _due(self) -> list[str]:
        now = self._clock()
        return [
            holder for holder in HOLDERS if (pair := self._pair(holder)) is None or authority.is_due(pair.leaf, now)
        ]

    def _pair(self, holder: str) -> Pair | None:
        try:
            return read_pair(self.of(holder), now=self._clock())
        except CertificateError:
            return None

    def _edge_names(self) -> list[str]:
        try:
            pair = read_pair(self.of(EDGE), now=datetime.min.replace(tzinfo=UTC))
        except CertificateError:
            return list(LOCAL_HOSTS)
        return authority.names_in(pair.leaf)

    def _elder(self, own: Authority) -> list[x509.Certificate]:
        """The authorities before, while certificates of theirs may be good."""
        if self._clock() > own.certificate.not_valid_before_utc + LEAF_LIFE + authority.SKEW:
            return []
        return [one for one in read_certificates(self.authorities) if one != own.certificate]

    def _issue(self, own: Authority, hosts: Sequence[str], holders: Sequence[str] = HOLDERS) -> None:
        for holder in holders:
            write_private(self.of(holder), own.issue(holder, hosts, self._clock()).decode())

    def _trust(self, authorities: list[x509.Certificate]) -> None:
        write_private(self.authorities, certificates.as_pem(authorities).decode())

    @property
    def _own(self) -> Path:
        return self.folder / "authority.pem"

    def _keep(self, own: Authority) -> None:
        pem = private_pem(own.key) + own.certificate.public_bytes(Encoding.PEM)
        write_private(self._own, pem.decode())

    def _load(self) -> Authority:
        if not self._own.exists():
            way_out = "Make certificates where it is kept, or begin anew: strongroom pki init"
            raise StartError(f"{self._own} is not here, without which no certificate is made. {way_out}")
        pair = read_pair(self._own, now=self._clock())
        key = load_pem_private_key(pair.key, password=None)
        if not isinstance(key, EllipticCurvePrivateKey):
            raise StartError(f"{self._own} is not an authority of `strongroom pki`.")
        return Authority(pair.leaf, key)

    def _create(self) -> None:
        try:
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            writable = self.folder.stat().st_mode & 0o022
        except OSError as error:
            raise StartError(f"{self.folder} can't be made: {error.strerror}.") from None
        if writable:
            raise StartError(f"Others may put keys of their own into {self.folder}; run: chmod 700 {self.folder}")

    @contextmanager
    def _locked(self, more: int = 0) -> Iterator[None]:
        try:
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            way_out = "To make certificates: strongroom pki init"
            raise StartError(f"{self.folder} can't be used: {error.strerror}. {way_out}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | more)
            yield
        except BlockingIOError:
            raise Busy from None
        except CertificateError as error:
            raise StartError(str(error)) from None
        except OSError as error:
            raise StartError(f"{self.folder} can't be written: {error.strerror}.") from None
        finally:
            os.close(descriptor)


def _hosts(texts: Sequence[str]) -> list[str]:
    try:
        return list(dict.fromkeys(authority.host(text) for text in texts)) or list(LOCAL_HOSTS)
    except authority.HostInvalid as error:
        raise StartError(str(error)) from None


def _expired(certificate: x509.Certificate, now: datetime) -> str:
    return "expired" if certificate.not_valid_after_utc <= now else ""
