"""The keys that sign access and identity tokens: ES256, private parts encrypted by the key service.

A key has a generation. Verifiers learn the public keys of all generations, and the newest whose `signs_from` has come
signs. To rotate is to insert a generation that signs from a later moment: later by more than anyone caches a key set,
because Envoy does not ask again for a key id it has not seen.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.auth.envelope import Envelope
from services.auth.tables import signing_keys
from services.shared.database import Database
from services.shared.errors import Unavailable
from services.shared.ids import new_id


@dataclass(frozen=True)
class SigningKey:
    """A key of one generation."""

    kid: str
    signs_from: datetime
    public: ec.EllipticCurvePublicKey = field(repr=False)
    private: ec.EllipticCurvePrivateKey = field(repr=False)


class SigningKeys:
    """The installation's signing keys, the same in all replicas."""

    def __init__(self, database: Database, envelope: Envelope, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._envelope = envelope
        self._clock = clock
        # By key id, the oldest generation first; replaced as a whole, never changed.
        self._keys: dict[str, SigningKey] = {}

    def load(self) -> None:
        """Reads the generations that are not known yet, and makes the first if there is none.

        Of replicas that start together one inserts, and all use what it inserted.
        """
        rows = self._rows()
        if not rows:
            self._insert_first()
            rows = self._rows()
        if len(rows) != len(self._keys):
            self._keys = {row.kid: self._keys.get(row.kid) or self._open(row) for row in rows}

    def current(self) -> SigningKey:
        """The key that signs now."""
        now = self._clock()
        for key in reversed(self._keys.values()):
            if key.signs_from <= now:
                return key
        raise Unavailable("The auth service is starting. Try again in a moment.", reason="AUTH_STARTING")

    def published(self) -> list[SigningKey]:
        """Every key that a token may be signed with, now or soon."""
        if not self._keys:
            raise Unavailable("The auth service is starting. Try again in a moment.", reason="AUTH_STARTING")
        return list(self._keys.values())

    def public_key(self, kid: str) -> ec.EllipticCurvePublicKey | None:
        """The public key of that id; None if there is none."""
        key = self._keys.get(kid)
        return key.public if key else None

    def _rows(self) -> list[Any]:
        with self._database.read() as connection:
            return list(connection.execute(sa.select(signing_keys).order_by(signing_keys.c.generation)))

    def _insert_first(self) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        kid, now = new_id(), self._clock()
        plaintext = private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        row = {
            "generation": 1,
            "kid": kid,
            "ciphertext": self._envelope.encrypt(plaintext, _context(kid)),
            "created_at": now,
            "signs_from": now,
        }
        with suppress(sa.exc.IntegrityError), self._database.write() as connection:
            connection.execute(sa.insert(signing_keys).values(row))

    def _open(self, row: Any) -> SigningKey:
        private = serialization.load_der_private_key(self._envelope.decrypt(row.ciphertext, _context(row.kid)), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return SigningKey(row.kid, row.signs_from, private.public_key(), private)


def _context(kid: str) -> str:
    return f"signing-key/{kid}"
