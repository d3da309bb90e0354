"""Writes packs (docs/format.md)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StoredChunk:
    """A chunk in a pack; `stored_length` is that of ciphertext and tag, `plain_length` that of the chunk. Bytes: ids and digests
    32, `blob_id` 16, `salt` 32."""

    chunk_id: bytes
    blob_id: bytes
    salt: bytes
    offset: int
    stored_length: int
    plain_length: int
    ciphertext_digest: bytes


@dataclass(frozen=True)
class SealedPack:
    """A durable pack: id of 16 bytes, size in bytes with header, padding and index."""

    pack_id: bytes
    size: int
    chunks: list[StoredChunk]
