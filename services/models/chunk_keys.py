"""The dedup domain: which chunks are the same, and the key of each."""

DOMAIN_SECRET_BYTES = 32
CHUNK_ID_BYTES = 32
SALT_BYTES = 32
BLOB_ID_BYTES = 16


class Domain:
    """A dedup domain with its secret (32 bytes). Equal plaintexts have equal chunk ids within a domain, unrelated ones across."""

    def __init__(self, secret: bytes, key_id: str) -> None:
        self.key_id = key_id

    def chunk_id(self, plain_digest: bytes) -> bytes:
        """The chunk id, 32 bytes, of a chunk with this BLAKE3-256 digest."""
        raise NotImplementedError

    def chunk_key(self, chunk_id: bytes, salt: bytes) -> bytes:
        """The AES-256 key, 32 bytes, of one encryption: `salt` is 32 random bytes, fresh for each."""
        raise NotImplementedError
