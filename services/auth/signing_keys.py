"""The keys that sign access and identity tokens: ES256, private parts encrypted by the key service.

A key has a generation. Verifiers learn the public keys of all generations, and the newest whose `signs_from` has come
signs. To rotate is to insert a generation that signs from a later moment: later by more than anyone caches a key set,
because Envoy does not ask again for a key id it has not seen. Of replicas that rotate at once one inserts: the
generation is the primary key.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.auth.envelope import Envelope
from services.auth.tables import signing_keys
from services.shared.database import Database
from services.shared.errors import FailedPrecondition, Unavailable
from services.shared.ids import new_id
from services.shared.tokens import ACCESS_SECONDS

# A key is published for as long after its successor signs: the life of the last token it signed, and a minute in which
# clocks differ and a replica has not seen the successor.
RETIRING = timedelta(seconds=ACCESS_SECONDS + 60)
# After a rotation by the calendar that failed.
_RETRY = timedelta(minutes=1)

_log = structlog.get_logger()


class RotationPending(FailedPrecondition):
    reason = "SIGNING_KEY_ROTATION_PENDING"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key of one generation."""

    kid: str
    created_at: datetime
    signs_from: datetime
    public: ec.EllipticCurvePublicKey = field(repr=False)
    private: ec.EllipticCurvePrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Published:
    """A key that verifiers know, as administrators see it. `state` is `published`, `signing` or `retiring`."""

    key: SigningKey
    until: datetime | None
    state: str


class SigningKeys:
    """The installation's signing keys, the same in all replicas.

    Args:
        delay: from a key's publication to its first signature; above what any verifier caches.
        rotate_after: how long a key signs before `maintain` makes the next; zero means for ever.
    """

    def __init__(
        self,
        database: Database,
        envelope: Envelope,
        clock: Callable[[], datetime],
        delay: timedelta = timedelta(seconds=90),
        rotate_after: timedelta = timedelta(),
    ) -> None:
        self._database = database
        self._envelope = envelope
        self._clock = clock
        self._delay = delay
        self._rotate_after = rotate_after
        self._retry_at = clock()
        # By key id, the oldest generation first; replaced as a whole, never changed.
        self._keys: dict[str, SigningKey] = {}

    def load(self) -> None:
        """Reads the generations that are not known yet, and makes the first if there is none.

        Of replicas that start together one inserts, and all use what it inserted.
        """
        rows = self._rows()
        if not rows:
            now = self._clock()
            with suppress(sa.exc.IntegrityError):
                self._insert(1, now, now)
            rows = self._rows()
        if [row.kid for row in rows] != list(self._keys):
            self._keys = {row.kid: self._keys.get(row.kid) or self._open(row) for row in rows}

    def maintain(self) -> None:
        """Learns what other replicas have done, rotates when it is time, and forgets keys that nothing needs.

        Raises if the database does not answer. A rotation that fails is tried again a minute later.
        """
        self.load()
        now = self._clock()
        newest = list(self._keys.values())[-1]
        if self._rotate_after and now >= max(newest.signs_from + self._rotate_after, self._retry_at):
            self._retry_at = now + _RETRY
            try:
                self.rotate()
            except RotationPending:
                self.load()  # another replica was faster
            except Exception as error:
                # The key in use is still good: whatever keeps the next from being made is no reason to stop work.
                _log.warning("signing key not rotated, trying again in a minute", error=type(error).__name__)
        self._forget(now)

    def rotate(self) -> Published:
        """Publishes a new key, which signs after the delay.

        Raises RotationPending while the last new key does not sign yet.
        """
        rows = self._rows()
        now = self._clock()
        if rows and rows[-1].signs_from > now:
            raise _pending(rows[-1].signs_from)
        signs_from = now + self._delay
        try:
            kid = self._insert(rows[-1].generation + 1 if rows else 1, now, signs_from)
        except sa.exc.IntegrityError:
            raise _pending(signs_from) from None
        _log.info("signing key rotated", kid=kid, signs_from=signs_from.isoformat())
        self.load()
        return Published(self._keys[kid], None, "published")

    def current(self) -> SigningKey:
        """The key that signs now."""
        now = self._clock()
        for key in reversed(self._keys.values()):
            if key.signs_from <= now:
                return key
        raise _starting()

    def published(self) -> list[Published]:
        """Every key that a token may be signed with, now or soon, or whose last token may still live; newest first."""
        current, now = self.current(), self._clock()
        keys = list(self._keys.values())
        ends = [later.signs_from + RETIRING for _, later in pairwise(keys)]
        found = []
        for key, end in zip(keys, [*ends, None], strict=True):
            if end is None or now < end:
                state = "published" if key.signs_from > now else "signing" if key is current else "retiring"
                found.append(Published(key, end, state))
        return found[::-1]

    def public_key(self, kid: str) -> ec.EllipticCurvePublicKey | None:
        """The public key of that id; None if none is published.

        Raises Unavailable before any is known: a token that can't be judged yet is not called a bad one.
        """
        if not self._keys:
            raise _starting()
        if kid not in self._keys:
            return None
        return next((shown.key.public for shown in self.published() if shown.key.kid == kid), None)

    def _rows(self) -> list[Any]:
        with self._database.read() as connection:
            return list(connection.execute(sa.select(signing_keys).order_by(signing_keys.c.generation)))

    def _insert(self, generation: int, now: datetime, signs_from: datetime) -> str:
        private = ec.generate_private_key(ec.SECP256R1())
        kid = new_id()
        plaintext = private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        row = {
            "generation": generation,
            "kid": kid,
            "ciphertext": self._envelope.encrypt(plaintext, _context(kid)),
            "created_at": now,
            "signs_from": signs_from,
        }
        with self._database.write() as connection:
            connection.execute(sa.insert(signing_keys).values(row))
        return kid

    def _forget(self, now: datetime) -> None:
        """Deletes the keys that are no longer published: nobody can sign with what is not there."""
        live = {shown.key.kid for shown in self.published()}
        # A clock that is ahead must not take a key from replicas whose clocks are right.
        gone = [
            kid
            for (kid, _), (_, later) in pairwise(self._keys.items())
            if kid not in live and later.signs_from + 2 * RETIRING < now
        ]
        if gone:
            with self._database.write() as connection:
                connection.execute(sa.delete(signing_keys).where(signing_keys.c.kid.in_(gone)))
            self._database.forget_deleted()
            self.load()

    def _open(self, row: Any) -> SigningKey:
        private = serialization.load_der_private_key(self._envelope.decrypt(row.ciphertext, _context(row.kid)), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return SigningKey(row.kid, row.created_at, row.signs_from, private.public_key(), private)


def _starting() -> Unavailable:
    return Unavailable("The auth service is starting. Try again in a moment.", reason="AUTH_STARTING")


def _pending(signs_from: datetime) -> RotationPending:
    moment = f"{signs_from:%Y-%m-%d %H:%M:%S}"
    return RotationPending(f"A new key signs from {moment} UTC on; rotate again afterwards.")


def _context(kid: str) -> str:
    return f"signing-key/{kid}"
