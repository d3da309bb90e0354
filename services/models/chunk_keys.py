"""The dedup domain: which chunks are the same, and the key of each (docs/format.md)."""

from blake3 import blake3
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DOMAIN_SECRET_BYTES = 32
CHUNK_ID_BYTES = 32
BLOB_ID_BYTES = 16
SALT_BYTES = 32

_CHUNK_ID_CONTEXT = b"strongroom chunk id v1"
_CHUNK_KEY_CONTEXT = b"strongroom chunk key v1"


class Domain:
    """A dedup domain: within it equal chunks have equal ids, between two of them nothing can be compared.

    Args:
        secret: 32 random bytes. Ids and keys come from subkeys of it, so an id says nothing about a key.
        key_id: what the secrets service calls this secret; manifests carry it.
    """

    def __init__(self, secret: bytes, key_id: str) -> None:
        if len(secret) != DOMAIN_SECRET_BYTES:
            raise ValueError("a domain secret has 32 bytes")
        self.key_id = key_id
        self._secret = secret
        self._id_key = _hkdf(secret, salt=None, info=_CHUNK_ID_CONTEXT)

    def chunk_id(self, plain_digest: bytes) -> bytes:
        """The id, 32 bytes, of the chunk with this BLAKE3-256 digest.

        Keyed, so that whoever reads the database cannot tell whether a file they know is stored.
        """
        return blake3(plain_digest, key=self._id_key).digest()

    def chunk_key(self, chunk_id: bytes, salt: bytes) -> bytes:
        """The AES-256 key, 32 bytes, of one encryption of a chunk. `salt` is 32 random bytes, fresh for each."""
        if len(chunk_id) != CHUNK_ID_BYTES or len(salt) != SALT_BYTES:
            raise ValueError("a chunk id and a salt have 32 bytes each")
        return _hkdf(self._secret, salt=salt, info=_CHUNK_KEY_CONTEXT + chunk_id)


def _hkdf(secret: bytes, *, salt: bytes | None, info: bytes) -> bytes:
    """HKDF with SHA-256 (RFC 5869), 32 bytes."""
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)
