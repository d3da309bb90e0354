"""Writes packs: encrypts chunks into page-aligned memory and from there past the page cache (docs/format.md)."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from blake3 import blake3

from services.models import codecs, packs
from services.models.chunk_keys import BLOB_ID_BYTES, SALT_BYTES, Domain
from services.models.codecs import Compressor
from services.models.packs import BLOCK, MAX_PACK, TAG_BYTES, PackEntry, PackIndex
from services.models.stores.store import Store
from strongroom.chunking import Buffer

MAX_GROUP = 8 * 1024 * 1024
SCRATCH_BYTES = BLOCK + MAX_GROUP


@dataclass(frozen=True)
class StoredChunk:
    """A chunk in a pack: `stored_length` is that of ciphertext and tag, `plain_length` that of the chunk.

    Bytes: `blob_id` 16, `salt` 32, `chunk_id` 32, `ciphertext_digest` 32.
    """

    chunk_id: bytes
    blob_id: bytes
    salt: bytes
    offset: int
    stored_length: int
    plain_length: int
    ciphertext_digest: bytes
    codec: int = codecs.PLAIN


@dataclass(frozen=True)
class SealedPack:
    """A durable pack: an id of 16 bytes, its size in bytes with header, padding and index."""

    pack_id: bytes
    size: int
    chunks: list[StoredChunk]


def stored_size(plain_length: int) -> int:
    """How many bytes of a pack a chunk takes at most: ciphertext, tag and padding."""
    return packs.aligned(plain_length + TAG_BYTES)


class PackWriter:
    """Writes one pack. One thread at a time; discard it after an error.

    Args:
        random: gives that many random bytes, for ids and salts.
        level: 1 to 9 compresses chunks that shrink, 0 none.
    """

    def __init__(
        self, store: Store, domain: Domain, random: Callable[[int], bytes] = os.urandom, *, level: int = 0
    ) -> None:
        self._compressor = Compressor(level)
        self._domain = domain
        self._random = random
        self._pack_id = random(packs.PACK_ID_BYTES)
        self._writer = store.create(packs.pack_key(self._pack_id))
        self._size = 0
        self._chunks: list[StoredChunk] = []

    def has_room(self, stored: int) -> bool:
        """Whether chunks of that stored size still fit. Into a new pack MAX_GROUP does."""
        return max(self._size, BLOCK) + stored <= MAX_PACK

    def append(self, chunks: Iterable[tuple[bytes, Buffer]], scratch: memoryview) -> None:
        """Encrypts and writes chunks, given as chunk id and plaintext, whose stored sizes sum to MAX_GROUP or less.

        `scratch` is SCRATCH_BYTES of page-aligned memory that nobody else uses meanwhile.
        """
        length = 0
        if not self._size:
            scratch[:BLOCK] = packs.encode_header(self._pack_id)
            length = BLOCK
        for chunk_id, plain in chunks:
            length += self._encrypt(chunk_id, plain, self._size + length, scratch[length:])
        self._writer.append(scratch[:length])
        self._size += length

    def seal(self, scratch: memoryview) -> SealedPack:
        """Ends the pack: when this returns, it is durable. It has at least one chunk."""
        entries = tuple(
            PackEntry(chunk.blob_id, chunk.offset, chunk.stored_length, chunk.ciphertext_digest)
            for chunk in self._chunks
        )
        size = self._size + packs.index_size(len(entries))
        index = packs.encode_index(PackIndex(self._pack_id, size, entries))
        scratch[: len(index)] = index
        self._writer.append(scratch[: len(index)])
        self._writer.commit()
        return SealedPack(self._pack_id, size, self._chunks)

    def discard(self) -> None:
        """Removes what was written; does nothing after `seal`."""
        self._writer.discard()

    def _encrypt(self, chunk_id: bytes, plain: Buffer, offset: int, room: memoryview) -> int:
        """Puts a blob at the beginning of `room`; returns its length with padding."""
        blob_id, salt = self._random(BLOB_ID_BYTES), self._random(SALT_BYTES)
        codec, encoded = self._compressor.shrink(plain)
        stored = room[: len(encoded) + TAG_BYTES]
        packs.encrypt_into(self._domain, chunk_id, salt, blob_id, encoded, stored, codec)
        padded = packs.aligned(len(stored))
        room[len(stored) : padded] = bytes(padded - len(stored))
        # Hashed while it is still in the processor's cache.
        digest = blake3(stored).digest()
        self._chunks.append(StoredChunk(chunk_id, blob_id, salt, offset, len(stored), len(plain), digest, codec))
        return padded
