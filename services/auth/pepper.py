"""The pepper: the HMAC key under which API keys are hashed, so that a stolen database cannot be searched for them.

HMAC-SHA256 and not a password hash, because a key of ours has 160 random bits: nobody guesses it, at any speed of
hashing. The bootstrap key may be chosen by a person; the pepper, which the database alone does not give away, guards
that one.
"""

import hmac
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import sqlalchemy as sa

from services.auth.envelope import Envelope
from services.auth.tables import peppers
from services.shared.database import Database
from services.shared.errors import Unavailable

_BYTES = 32
_GENERATION = 1
_CONTEXT = f"pepper/{_GENERATION}"


class Pepper:
    """The installation's pepper. Nothing can be hashed before `load` has succeeded."""

    def __init__(self, database: Database, envelope: Envelope, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._envelope = envelope
        self._clock = clock
        self._value = b""

    def load(self) -> None:
        """Unwraps the pepper, and makes it first if there is none. Of replicas that start together one makes it."""
        if self._value:
            return
        if (stored := self._stored()) is None:
            ciphertext = self._envelope.encrypt(secrets.token_bytes(_BYTES), _CONTEXT)
            row = {"generation": _GENERATION, "ciphertext": ciphertext, "created_at": self._clock()}
            with suppress(sa.exc.IntegrityError), self._database.write() as connection:
                connection.execute(sa.insert(peppers).values(row))
            stored = self._stored()
        assert stored is not None
        self._value = self._envelope.decrypt(stored, _CONTEXT)

    def hash(self, key: str) -> bytes:
        """HMAC-SHA256 of a whole API key, 32 bytes."""
        if not self._value:
            raise Unavailable("The auth service is starting. Try again in a moment.", reason="AUTH_STARTING")
        return hmac.digest(self._value, key.encode(), "sha256")

    def _stored(self) -> bytes | None:
        with self._database.read() as connection:
            return connection.scalar(sa.select(peppers.c.ciphertext).where(peppers.c.generation == _GENERATION))
