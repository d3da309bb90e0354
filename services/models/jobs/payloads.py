"""What jobs are given and what they make, encrypted as weights are: under a key that the manager's key-encryption key
wraps.

A payload is a random salt, then AES-256-GCM of the compressed JSON under a key that HKDF derives from the manager's
payload key and that salt. So each key encrypts one payload, and the fixed nonce is never used twice with one
(NIST SP 800-38D, section 8.3). The associated data is the payload's name: none can stand in another's place.
"""

import json
import os
from typing import Any

import sqlalchemy as sa
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.models import condemned
from services.models import ml_tables as m
from services.models import tables as t
from services.models.key_client import KeyClient
from services.models.managers import Managers, missing
from services.shared.database import Database
from services.shared.errors import DataLoss

_SALT_BYTES = 32
_NONCE = bytes(12)
_INFO = b"strongroom payload v1"
_LEVEL = 3


class PayloadDamaged(DataLoss):
    """Its bytes are not those that were stored."""

    reason = "PAYLOAD_DAMAGED"


class Payloads:
    """Seals and opens payloads. All methods may raise KeyServiceUnavailable."""

    def __init__(self, database: Database, keys: KeyClient, managers: Managers) -> None:
        self._database = database
        self._keys = keys
        self._managers = managers

    def seal(self, manager_id: str, name: str, value: Any) -> bytes:
        """A JSON value as it is stored under this name. Raises ManagerNotFound."""
        salt = os.urandom(_SALT_BYTES)
        plain = zstandard.ZstdCompressor(level=_LEVEL).compress(json.dumps(value, separators=(",", ":")).encode())
        return salt + self._cipher(manager_id, salt).encrypt(_NONCE, plain, name.encode())

    def open(self, manager_id: str, name: str, sealed: bytes) -> Any:
        """The value. Raises PayloadDamaged, ManagerNotFound, KeyMissing."""
        salt, encrypted = sealed[:_SALT_BYTES], sealed[_SALT_BYTES:]
        try:
            plain = self._cipher(manager_id, salt).decrypt(_NONCE, encrypted, name.encode())
        except InvalidTag:
            raise PayloadDamaged("What is stored here is damaged: restore it from a backup.") from None
        return json.loads(zstandard.ZstdDecompressor().decompress(plain))

    def _cipher(self, manager_id: str, salt: bytes) -> AESGCM:
        key = self._keys.unwrap(self._key_id(manager_id), _context(manager_id))
        return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=_INFO).derive(key))

    def _key_id(self, manager_id: str) -> str:
        return self._find(manager_id) or self._create(manager_id)

    def _find(self, manager_id: str) -> str | None:
        c = m.payload_keys.c
        with self._database.read() as connection:
            return connection.scalar(sa.select(c.key_id).where(c.manager_id == manager_id))

    def _create(self, manager_id: str) -> str:
        """Of several who do this at a time one wins, and the others destroy their keys."""
        made = self._keys.generate(self._managers.get(manager_id).kek_id, _context(manager_id)).key_id
        with self._database.write() as connection:
            t.hold_references(connection)
            condemned.refuse_condemned(connection, [condemned.name_of_key(made)])
            t.insert_missing(connection, m.payload_keys, [{"manager_id": manager_id, "key_id": made}])
        kept = self._find(manager_id)
        if kept != made:
            self._keys.destroy([made])
        if kept is None:
            raise missing(manager_id)
        return kept


def _context(manager_id: str) -> str:
    return f"managers/{manager_id}/payload-key"
