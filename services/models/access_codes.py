"""Access codes: a second lock on a version's data key, to which the services have no key.

    data key ──AES-256-GCM under scrypt(code)──► sealed key ──KEK──► row of the secrets service

So a key-encryption key rotates without any code, and whoever has database, stores and root key still needs the code.
What remains is guessing, which scrypt makes dear for who has all of these, and `Guesses` slow for everybody else.
"""

import hashlib
import hmac
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from services.models import tables as t
from services.shared.database import Database
from services.shared.errors import InvalidArgument, PermissionDenied, ResourceExhausted

MAX_CODE = 1024
DATA_KEY_BYTES = 32

_FORMAT = 1
# Format; log2 of scrypt's N, r and p (OWASP's password storage cheat sheet: 2^15, 8, 3 take 32 MiB); salt; nonce.
_HEAD = struct.Struct("<BBBB16s12s")
_COST = (15, 8, 3)
_CONTEXT = b"strongroom access code v1"

# Wrong codes in a row that cost nothing; after the next one the caller waits, and after each more twice as long.
_FREE_GUESSES = 5
_FIRST_WAIT = timedelta(seconds=8)
_LONGEST_WAIT = timedelta(minutes=15)
_REMEMBERED = timedelta(days=1)


class AccessCodeInvalid(InvalidArgument):
    """No code at all, or one too long."""

    reason = "ACCESS_CODE_INVALID"


class AccessCodeRefused(PermissionDenied):
    """Missing or wrong: which, is not told."""

    reason = "ACCESS_CODE_REFUSED"

    def __init__(self) -> None:
        super().__init__("This version is protected: present its access code in the header x-access-code.")


class AccessCodeThrottled(ResourceExhausted):
    """Too many wrong codes in a row by this caller for this version."""

    reason = "ACCESS_CODE_THROTTLED"


@dataclass(frozen=True)
class AccessCode:
    """A code as a caller presents it, 1 to 1024 bytes of UTF-8. Raises AccessCodeInvalid.

    Args:
        presenter: the caller's id, by which wrong guesses are counted.
    """

    text: str = field(repr=False)
    presenter: str = ""

    def __post_init__(self) -> None:
        try:
            length = len(self.text.encode())
        except UnicodeEncodeError:
            length = 0
        if not 0 < length <= MAX_CODE:
            raise AccessCodeInvalid(f"An access code has 1 to {MAX_CODE} bytes of UTF-8.")

    def fingerprint(self, key: bytes) -> bytes:
        """32 bytes by which a process that keeps `key` to itself knows again that this caller presented this code.

        With the caller: what another one opened must not tell a guesser, who is made to wait, whether a guess is right.
        """
        return hmac.digest(key, f"{self.presenter}\0{self.text}".encode(), hashlib.sha256)


def seal(code: AccessCode, data_key: bytes, context: str, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """The data key of 32 bytes, locked by the code and bound to the context; 80 bytes."""
    head = _HEAD.pack(_FORMAT, *_COST, random(16), random(12))
    return head + AESGCM(_derived(code, head)).encrypt(head[-12:], data_key, _aad(head, context))


def unseal(code: AccessCode, sealed: bytes, context: str) -> bytes | None:
    """The data key; None if the code is not the one it was locked by."""
    head, locked = sealed[: _HEAD.size], sealed[_HEAD.size :]
    # One form alone: nobody chooses for us how much memory a guess takes.
    if len(locked) != DATA_KEY_BYTES + 16 or _HEAD.unpack(head)[:4] != (_FORMAT, *_COST):
        return None
    try:
        return AESGCM(_derived(code, head)).decrypt(head[-12:], locked, _aad(head, context))
    except InvalidTag:
        return None


class Guesses:
    """Counts wrong codes, by key and presenter, in the database: so that no replica is asked where another refuses."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def count(self, key_id: str, presenter: str) -> None:
        """Counts an attempt before it is made, as those made at the same time count too. Raises AccessCodeThrottled."""
        now = self._clock()
        with self._database.write() as connection:
            row = {"key_id": key_id, "presenter": presenter, "count": 0, "blocked_until": now}
            t.insert_missing(connection, t.access_code_guesses, [row])
            this = _is(key_id, presenter)
            c = t.access_code_guesses.c
            count, blocked_until = connection.execute(
                sa.select(c.count, c.blocked_until).where(this).with_for_update()
            ).one()
            if blocked_until > now:
                wait = (blocked_until - now).total_seconds()
                message = "Too many wrong access codes. Wait, then try again."
                raise AccessCodeThrottled(message, retry_after=wait)
            wait_after = min(_FIRST_WAIT * 2 ** min(max(count - _FREE_GUESSES, 0), 20), _LONGEST_WAIT)
            changes = {"count": count + 1, "blocked_until": now + wait_after if count >= _FREE_GUESSES else now}
            connection.execute(sa.update(t.access_code_guesses).where(this).values(changes))

    def forget(self, key_id: str, presenter: str) -> None:
        """The code was right."""
        with self._database.write() as connection:
            connection.execute(sa.delete(t.access_code_guesses).where(_is(key_id, presenter)))


def forget_guesses(connection: sa.Connection, now: datetime) -> None:
    """Deletes what was counted for callers who have left off."""
    before = now - _REMEMBERED
    connection.execute(sa.delete(t.access_code_guesses).where(t.access_code_guesses.c.blocked_until < before))


# One at a time in a process: what guessing takes of its memory is bounded.
_deriving = threading.Lock()


def _derived(code: AccessCode, head: bytes) -> bytes:
    _, log2_n, r, p, salt, _ = _HEAD.unpack(head)
    with _deriving:
        return Scrypt(salt=salt, length=32, n=1 << log2_n, r=r, p=p).derive(code.text.encode())


def _aad(head: bytes, context: str) -> bytes:
    return _CONTEXT + head + context.encode()


def _is(key_id: str, presenter: str) -> sa.ColumnElement[bool]:
    c = t.access_code_guesses.c
    return sa.and_(c.key_id == key_id, c.presenter == presenter)
