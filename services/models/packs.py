"""Packs: immutable objects of about 64 MiB that hold encrypted chunks (docs/format.md)."""

from dataclasses import dataclass

from services.models.chunk_keys import Domain
from services.models.store_local import LocalStore


@dataclass(frozen=True)
class PackEntry:
    """Where a pack holds a blob: `stored_length` is that of ciphertext and tag, `ciphertext_digest` their BLAKE3."""

    blob_id: bytes
    offset: int
    stored_length: int
    ciphertext_digest: bytes


@dataclass(frozen=True)
class PackIndex:
    """A pack's size in bytes and its entries in order of offset."""

    pack_id: bytes
    size: int
    entries: tuple[PackEntry, ...]


def pack_key(pack_id: bytes) -> str:
    """The store's key of a pack: `packs/ab/<32 hexadecimal digits>`."""
    raise NotImplementedError


def read_index(store: LocalStore, pack_id: bytes) -> PackIndex:
    """Reads header and index from the pack itself. DataLoss with reason PACK_DAMAGED or PACK_MISSING."""
    raise NotImplementedError


def read_blob(store: LocalStore, pack_id: bytes, offset: int, stored_length: int) -> bytes:
    """Ciphertext and tag, not yet authenticated. DataLoss with reason CHUNK_DAMAGED or PACK_MISSING."""
    raise NotImplementedError


def decrypt(domain: Domain, chunk_id: bytes, salt: bytes, blob_id: bytes, stored: bytes) -> bytes:
    """The chunk's plaintext. DataLoss with reason CHUNK_DAMAGED: not a byte of it is returned then."""
    raise NotImplementedError


def damaged(store: LocalStore, pack_id: bytes) -> list[PackEntry]:
    """Reads the whole pack and says which blobs are not as the index says; needs no key. DataLoss as `read_index`."""
    raise NotImplementedError
