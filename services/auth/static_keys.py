"""API keys that the environment or a mounted file gives: no row in the database, no prefix chosen by us.

An entry is `name:permission_set:key`, or a key alone, which may use the product and administer nothing (`UNNAMED`).
A file has one entry a line; lines that begin with `#` are comments. It is read again when it changes.
"""

import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from services.auth import chosen_secrets, key_format
from services.auth.admission import Attempt, Rejected
from services.auth.pepper import Pepper
from services.auth.permission_sets import EVERYWHERE, PERMISSION_SETS, UNNAMED, PermissionSet
from services.auth.secret_references import resolve
from services.shared.identity import Grant, Principal

KIND = "static"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_FILE_BYTES = 1 << 20
# Of the hash under the pepper: tells keys apart in logs and gives nothing of them away.
_FINGERPRINT_CHARACTERS = 8
# Seconds between two looks at the file.
_LOOK_SECONDS = 1.0
# Longer than a token lives.
_REMEMBERED = timedelta(hours=1)
# The guide that shows these tells its readers to replace them.
_EXAMPLES = ("sk_ml_train_abc123", "sk_ml_predict_xyz789")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Entry:
    """A configured key; without a name it is `UNNAMED`. `where` says which one it is, for errors."""

    name: str
    permission_set: PermissionSet
    value: str = field(repr=False)
    where: str = ""


def parse(text: str, source: str) -> list[Entry]:
    """The entries of a setting, one a line or with commas between them.

    Raises ValueError, which names source and entry but not the key.
    """
    found = []
    for number, line in enumerate(re.split(r"[,\n]", text), 1):
        written = line.strip()
        if written and not written.startswith("#"):
            found.append(_entry(written, f"{source}, entry {number}"))
    return _distinct(found)


class KeyFile:
    """A file of entries, readable by its owner alone or on a read-only mount, as Docker and Kubernetes mount secrets.

    Those are often readable by everybody inside of the container, whose only user is the service.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._looked: tuple[int, ...] = ()

    def changed(self) -> bool:
        """Whether it is another file, or another content, than was read last, and nobody is writing any more.

        A half-written file lacks keys, and what is told as ended stays so for as long as a token lives.
        """
        state = self._state()
        settled, self._looked = state == self._looked, state
        return settled and state != self._seen

    def read(self) -> list[Entry]:
        """The entries. Raises ValueError, PermissionError or OSError."""
        self._seen = self._state()
        status = self._path.stat()
        read_only = os.statvfs(self._path).f_flag & os.ST_RDONLY
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) and not read_only:
            raise PermissionError(f"{self._path} may be read by others; run: chmod 600 {self._path}")
        # A pipe would keep whoever reads it waiting.
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{self._path} is not a file.")
        if status.st_size > _MAX_FILE_BYTES:
            raise ValueError(f"{self._path} is larger than {_MAX_FILE_BYTES} bytes.")
        lines = self._path.read_text(encoding="utf-8-sig").splitlines()
        # Not a separator here: a key with a comma is one that no header can carry.
        if any("," in line for line in lines if not line.strip().startswith("#")):
            raise ValueError(f"{self._path} has a line with a comma. Write one key a line.")
        return parse("\n".join(line.replace(",", " ") for line in lines), str(self._path))

    def _state(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError:
            return (0,)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode


class StaticKeys:
    """Knows the configured keys: an Authenticator and a CredentialSource.

    Args:
        given: entries of the environment.
        file: more of them; its content counts as it was when it could last be read.
    """

    def __init__(self, given: list[Entry], file: KeyFile | None, pepper: Pepper, clock: Callable[[], datetime]) -> None:
        self._given = given
        self._file = file
        self._pepper = pepper
        self._clock = clock
        self._entries = _distinct([*given, *(file.read() if file else ())])
        self._keys: dict[bytes, Principal] = {}
        self._ended: dict[str, datetime] = {}
        self._looked = 0.0
        self._lock = threading.Lock()

    def load(self) -> None:
        """Hashes the keys; the pepper must be there. Until then nobody is known."""
        with self._lock:
            self._keys = dict(map(self._hashed, self._entries))

    def judge(self, attempt: Attempt) -> Principal | Rejected | None:
        """Found by a hash under a pepper that the caller does not know: the time it takes tells nothing of a key."""
        if attempt.api_key is None or not 0 < len(attempt.api_key) <= chosen_secrets.MAX_CHARACTERS:
            return None
        self._look()
        return self._keys.get(self._pepper.hash(attempt.api_key))

    def unusable(self, credential_id: str) -> bool:
        """Whether no such key is configured any more."""
        self._look()
        return all(principal.credential_id != credential_id for principal in self._keys.values())

    def expires_at(self, credential_id: str) -> datetime | None:
        """Never: it ends with its entry."""
        return None

    def revoked_since(self, moment: datetime) -> list[str]:
        """The keys that disappeared from the file at that moment or later."""
        self._look()
        return [credential for credential, ended in self._ended.items() if ended >= moment]

    def find(self, name: str) -> Principal | None:
        """The principal `static:<name>`."""
        return next((known for known in self._keys.values() if known.id == f"{KIND}:{name}"), None)

    def _look(self) -> None:
        """Reads the file again if it has changed; whoever comes meanwhile goes on with what is known."""
        now = time.monotonic()
        if self._file is None or now - self._looked < _LOOK_SECONDS or not self._lock.acquire(blocking=False):
            return
        try:
            self._looked = now
            if self._file.changed():
                self._take(_distinct([*self._given, *self._file.read()]))
                _log.info("auth.static_keys_read", keys=len(self._keys))
        except (OSError, ValueError) as error:
            # A slip of the pen must not lock everybody out. What the errors say names entries, never keys.
            _log.error("auth.static_keys_not_read", error=str(error))
        finally:
            self._lock.release()

    def _take(self, entries: list[Entry]) -> None:
        now, keys = self._clock(), dict(map(self._hashed, entries))
        there = {principal.credential_id for principal in keys.values()}
        gone = {known.credential_id: now for known in self._keys.values() if known.credential_id not in there}
        kept = {
            credential: ended
            for credential, ended in self._ended.items()
            if ended > now - _REMEMBERED and credential not in there
        }
        self._keys, self._ended = keys, kept | gone

    def _hashed(self, entry: Entry) -> tuple[bytes, Principal]:
        key_hash = self._pepper.hash(entry.value)
        fingerprint = key_hash.hex()[:_FINGERPRINT_CHARACTERS]
        parsed = key_format.parse(entry.value)
        name = entry.name or f"{UNNAMED.name}-{fingerprint}"
        grant = Grant("allow", entry.permission_set.permissions, (EVERYWHERE,))
        # With the fingerprint, so that a name's new key does not keep the old one's tokens alive.
        credential, prefix = f"{KIND}:{name}:{fingerprint}", parsed.prefix if parsed else fingerprint
        return key_hash, Principal(f"{KIND}:{name}", name, credential, prefix, (grant,))


def _entry(written: str, where: str) -> Entry:
    # A reference has a colon of its own.
    parts = [written] if written.startswith("aws-") else written.split(":", 2)
    if len(parts) == 1:
        return Entry("", UNNAMED, _value(parts[0], where), where)
    if len(parts) == 2:
        raise ValueError(f"{where}: write name:permission_set:key, or a key without colons.")
    name, permission_set, value = parts
    if not _NAME.fullmatch(name):
        raise ValueError(f"{where}: a name is 1 to 64 letters, digits, dots, dashes and underscores.")
    where = f"{where} ({name})"
    if permission_set not in PERMISSION_SETS:
        raise ValueError(f"{where}: there is no such permission set. There are: {', '.join(PERMISSION_SETS)}.")
    return Entry(name, PERMISSION_SETS[permission_set], _value(value, where), where)


def _value(written: str, where: str) -> str:
    value = chosen_secrets.check(resolve(written), f"The API key in {where}")
    if " " in value:
        raise ValueError(f"{where}: a key has no blanks, and a comment stands on a line of its own.")
    if value in _EXAMPLES:
        _log.warning("auth.example_key", where=where, advice="Replace it: it stands in a guide that anyone can read.")
    return value


def _distinct(entries: Iterable[Entry]) -> list[Entry]:
    names: dict[str, str] = {}
    values: dict[str, str] = {}
    made = list(entries)
    for entry in made:
        if entry.name and entry.name in names:
            raise ValueError(f"{entry.where}: the name is taken by {names[entry.name]}.")
        if entry.value in values:
            raise ValueError(f"{entry.where}: the same key as {values[entry.value]}.")
        names[entry.name], values[entry.value] = entry.where, entry.where
    return made
