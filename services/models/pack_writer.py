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
    """How many bytes of a pack a chunk takes at most: ciphertext, tag and padding. Small ones share a block."""
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
        self._size = 0  # written: whole blocks
        self._tail = packs.encode_header(self._pack_id)  # not yet written: at most a block
        self._chunks: list[StoredChunk] = []

    def has_room(self, stored: int, count: int) -> bool:
        """Whether so many chunks of that stored size still fit. Into a new pack MAX_GROUP does."""
        end = packs.aligned(self._size + len(self._tail))
        return end + stored <= MAX_PACK and len(self._chunks) + count <= packs.MAX_ENTRIES

    def append(self, chunks: Iterable[tuple[bytes, Buffer]], scratch: memoryview) -> None:
        """Encrypts and writes chunks, given as chunk id and plaintext, whose stored sizes sum to MAX_GROUP or less.

        `scratch` is SCRATCH_BYTES of page-aligned memory that nobody else uses meanwhile.
        """
        end = len(self._tail)
        scratch[:end] = self._tail
        for chunk_id, plain in chunks:
            end = self._encrypt(chunk_id, plain, end, scratch)
        whole = end // BLOCK * BLOCK
        self._tail = bytes(scratch[whole:end])
        self._writer.append(scratch[:whole])
        self._size += whole

    def seal(self, scratch: memoryview) -> SealedPack:
        """Ends the pack: when this returns, it is durable. It has at least one chunk."""
        entries = tuple(
            PackEntry(chunk.blob_id, chunk.offset, chunk.stored_length, chunk.ciphertext_digest)
            for chunk in self._chunks
        )
        rest = packs.aligned(len(self._tail))
        size = self._size + rest + packs.index_size(len(entries))
        end = self._tail.ljust(rest, b"\0") + packs.encode_index(PackIndex(self._pack_id, size, entries))
        scratch[: len(end)] = end
        self._writer.append(scratch[: len(end)])
        self._writer.commit()
        return SealedPack(self._pack_id, size, self._chunks)

    def discard(self) -> None:
        """Removes what was written; does nothing after `seal`."""
        self._writer.discard()

    def _encrypt(self, chunk_id: bytes, plain: Buffer, end: int, scratch: memoryview) -> int:
        """Puts a blob behind what ends at `end`; returns where it ends itself."""
        blob_id, salt = self._random(BLOB_ID_BYTES), self._random(SALT_BYTES)
        codec, encoded = self._compressor.shrink(plain)
        begin = packs.place(end, len(encoded) + TAG_BYTES)  # whole blocks are before the scratch
        scratch[end:begin] = bytes(begin - end)
        stored = scratch[begin : begin + len(encoded) + TAG_BYTES]
        packs.encrypt_into(self._domain, chunk_id, salt, blob_id, encoded, stored, codec)
        # Hashed while it is still in the processor's cache.
        digest = blake3(stored).digest()
        at = self._size + begin
        self._chunks.append(StoredChunk(chunk_id, blob_id, salt, at, len(stored), len(plain), digest, codec))
        return begin + len(stored)
