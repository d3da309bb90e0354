"""Packs: immutable objects of at most 64 MiB of encrypted chunks and an index (docs/format.md).

Nothing in a pack says what it holds: blobs have random ids, and neither chunk ids nor salts are in it. The index finds
blobs and finds damage by accident; whoever can write packs can forge it, and is found out by the chunks' own tags.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.models import codecs
from services.models.chunk_keys import BLOB_ID_BYTES, Domain
from services.models.stores.store import ObjectNotFound, Store
from services.shared.errors import DataLoss
from strongroom.chunking import MAX_CHUNK, Buffer

FORMAT_VERSION = 2
PACK_ID_BYTES = 16
TAG_BYTES = 16
BLOCK = 4096  # what O_DIRECT writes; smaller blobs share one
MAX_PACK = 64 * 1024 * 1024  # header and blobs; the index comes on top

_MAGIC = b"STRGPACK"
_HEADER = struct.Struct("<8sI16s")  # magic, format version, pack id
_ENTRY = struct.Struct("<16sQQ32s")  # blob id, offset, stored length, BLAKE3 of the stored bytes
_TRAILER = struct.Struct("<32sQQII8s")  # digest, offset of the index, size of the pack, count, format version, magic
MAX_ENTRIES = MAX_PACK // BLOCK - 1
# Read at once: a request for each small blob would take longer than its bytes do.
_PIECE = 8 * 1024 * 1024

# GCM must not see a nonce twice under one key (NIST SP 800-38D, section 8). A chunk key comes from a fresh random salt
# of 256 bits and encrypts one chunk, once; so its one nonce may be any constant.
_NONCE = bytes(12)
_AAD = struct.Struct("<19sB16s")


@dataclass(frozen=True)
class PackEntry:
    """Where a pack holds a blob: `stored_length` is that of ciphertext and tag, `ciphertext_digest` their BLAKE3."""

    blob_id: bytes
    offset: int
    stored_length: int
    ciphertext_digest: bytes


@dataclass(frozen=True)
class PackIndex:
    """A pack's size in bytes and its entries in order of offset. In `version` 1 every blob begins a block."""

    pack_id: bytes
    size: int
    entries: tuple[PackEntry, ...]
    version: int = FORMAT_VERSION


def pack_key(pack_id: bytes) -> str:
    """The store's key of a pack: `packs/ab/<32 hexadecimal digits>`, where `ab` are the first two."""
    name = pack_id.hex()
    return f"packs/{name[:2]}/{name}"


def pack_id_of(key: str) -> bytes | None:
    """The id of the pack with this key; None if it is the key of something else."""
    try:
        pack_id = bytes.fromhex(key.rpartition("/")[2])
    except ValueError:
        return None
    return pack_id if len(pack_id) == PACK_ID_BYTES and pack_key(pack_id) == key else None


def aligned(length: int) -> int:
    """The next multiple of 4096."""
    return -(-length // BLOCK) * BLOCK


def place(end: int, length: int, version: int = FORMAT_VERSION) -> int:
    """Where a blob of that stored length begins if the one before it ends at `end`.

    Behind it, if it is smaller than a block and there is room for it in this one; else at the next block.
    """
    shares = version > 1 and length < BLOCK and end % BLOCK + length <= BLOCK
    return end if shares else aligned(end)


def read_index(store: Store, pack_id: bytes) -> PackIndex:
    """Reads header and index from the pack itself. DataLoss with reason PACK_DAMAGED or PACK_MISSING."""
    key = pack_key(pack_id)
    try:
        size = store.size(key)
        trailer = store.read(key, max(0, size - _TRAILER.size), _TRAILER.size)
        if len(trailer) != _TRAILER.size:
            raise _damaged_pack(pack_id)
        _, offset, stated_size, count, version, magic = _TRAILER.unpack(trailer)
        if (
            (magic, stated_size) != (_MAGIC, size)
            or not 1 <= version <= FORMAT_VERSION
            or not 1 <= count <= MAX_ENTRIES
            or not 2 * BLOCK <= offset <= MAX_PACK
            or size != offset + aligned(count * _ENTRY.size + _TRAILER.size)
        ):
            raise _damaged_pack(pack_id)
        table = store.read(key, offset, size - offset)
        header = store.read(key, 0, BLOCK)
    except ObjectNotFound:
        raise _missing_pack(pack_id) from None
    entries = tuple(PackEntry(*row) for row in _ENTRY.iter_unpack(table[: count * _ENTRY.size]))
    index = PackIndex(pack_id, size, entries, version)
    # One form only: what an index says must be what writing it again would give, byte for byte.
    if header != encode_header(pack_id, version) or not _contiguous(index, offset) or table != encode_index(index):
        raise _damaged_pack(pack_id)
    return index


def read_blob(store: Store, pack_id: bytes, offset: int, stored_length: int) -> memoryview:
    """Ciphertext and tag, not yet authenticated. DataLoss with reason CHUNK_DAMAGED or PACK_MISSING."""
    possible = TAG_BYTES < stored_length <= MAX_CHUNK + TAG_BYTES
    if offset < BLOCK or not possible or place(offset, stored_length) != offset:
        raise _damaged_chunk()
    try:
        data = memoryview(store.read(pack_key(pack_id), offset, stored_length))
    except ObjectNotFound:
        raise _missing_pack(pack_id) from None
    if len(data) != stored_length:
        raise _damaged_chunk()
    return data


def damaged(store: Store, pack_id: bytes) -> list[PackEntry]:
    """Reads the whole pack and says which blobs are not as its index says; needs no key. DataLoss as `read_index`."""
    index = read_index(store, pack_id)
    return [entry for _, spans in read_pieces(store, index) for entry, span in spans if not sound(entry, span)]


def read_pieces(store: Store, index: PackIndex) -> Iterator[tuple[bytes, list[tuple[PackEntry, memoryview]]]]:
    """What is between header and index, a few MiB at a time: each blob with what follows it up to the next.

    DataLoss with reason PACK_MISSING. What is cut is for `sound` to find.
    """
    end = index.size - index_size(len(index.entries))
    starts = [*(entry.offset for entry in index.entries), end]
    first = 0
    for after, until in enumerate(starts[1:], 1):
        begin = starts[first]
        if until - begin < _PIECE and until < end:
            continue
        try:
            piece = store.read(pack_key(index.pack_id), begin, until - begin)[: until - begin]
        except ObjectNotFound:
            raise _missing_pack(index.pack_id) from None
        piece = piece.ljust(until - begin, b"\xff")  # what padding never is, so that a cut is seen
        view = memoryview(piece)
        spans = [view[starts[at] - begin : starts[at + 1] - begin] for at in range(first, after)]
        yield piece, list(zip(index.entries[first:after], spans, strict=True))
        first = after


def sound(entry: PackEntry, span: memoryview) -> bool:
    """Whether this is the blob, and nothing but zeros follow it."""
    blob, padding = span[: entry.stored_length], span[entry.stored_length :]
    return blake3(blob).digest() == entry.ciphertext_digest and not any(padding)


def encrypt_into(
    domain: Domain,
    chunk_id: bytes,
    salt: bytes,
    blob_id: bytes,
    encoded: Buffer,
    stored: memoryview,
    codec: int = codecs.PLAIN,
) -> None:
    """Encrypts an encoded chunk into `stored`, 16 bytes longer. `salt` and `blob_id` are random and fresh for every
    call."""
    key = AESGCM(domain.chunk_key(chunk_id, salt))
    key.encrypt_into(_NONCE, encoded, _associated_data(blob_id, codec), stored)


def decrypt(
    domain: Domain,
    chunk_id: bytes,
    salt: bytes,
    blob_id: bytes,
    stored: Buffer,
    codec: int = codecs.PLAIN,
) -> bytes:
    """The encoded chunk. DataLoss with reason CHUNK_DAMAGED, and not a byte of it, where it is not authentic."""
    try:
        key = AESGCM(domain.chunk_key(chunk_id, salt))
        return key.decrypt(_NONCE, stored, _associated_data(blob_id, codec))
    except InvalidTag:
        raise _damaged_chunk() from None


def decrypt_into(
    domain: Domain, chunk_id: bytes, salt: bytes, blob_id: bytes, stored: Buffer, room: memoryview
) -> None:
    """As `decrypt`, of codec 0, into `room`, which is 16 bytes shorter than `stored`; it costs half."""
    try:
        key = AESGCM(domain.chunk_key(chunk_id, salt))
        key.decrypt_into(_NONCE, stored, _associated_data(blob_id, codecs.PLAIN), room)
    except InvalidTag:
        raise _damaged_chunk() from None


def encode_header(pack_id: bytes, version: int = FORMAT_VERSION) -> bytes:
    """The first block of a pack."""
    return _HEADER.pack(_MAGIC, version, pack_id).ljust(BLOCK, b"\0")


def encode_index(index: PackIndex) -> bytes:
    """The end of a pack: its entries, zeros up to a trailer that ends a block, the trailer."""
    rows = b"".join(
        _ENTRY.pack(entry.blob_id, entry.offset, entry.stored_length, entry.ciphertext_digest)
        for entry in index.entries
    )
    length = aligned(len(rows) + _TRAILER.size)
    fields = (index.size - length, index.size, len(index.entries), index.version, _MAGIC)
    unsigned = _TRAILER.pack(bytes(32), *fields)
    digest = blake3(index.pack_id + rows + unsigned).digest()
    return rows.ljust(length - _TRAILER.size, b"\0") + _TRAILER.pack(digest, *fields)


def index_size(count: int) -> int:
    """How many bytes the end of a pack takes that holds `count` blobs."""
    return aligned(count * _ENTRY.size + _TRAILER.size)


def _contiguous(index: PackIndex, end: int) -> bool:
    """Whether the blobs fill the pack from the header to the index, and have distinct ids and possible lengths."""
    position = BLOCK
    for entry in index.entries:
        if not TAG_BYTES < entry.stored_length <= MAX_CHUNK + TAG_BYTES:
            return False
        if entry.offset != place(position, entry.stored_length, index.version):
            return False
        position = entry.offset + entry.stored_length
    return aligned(position) == end and len({entry.blob_id for entry in index.entries}) == len(index.entries)


def _associated_data(blob_id: bytes, codec: int) -> bytes:
    if len(blob_id) != BLOB_ID_BYTES:
        raise ValueError("a blob id has 16 bytes")
    return _AAD.pack(b"strongroom chunk v1", codec, blob_id)


def _damaged_chunk() -> DataLoss:
    return DataLoss("Stored bytes are damaged: restore them from a copy.", reason="CHUNK_DAMAGED")


def _damaged_pack(pack_id: bytes) -> DataLoss:
    return DataLoss("A pack is damaged: restore it from a copy.", reason="PACK_DAMAGED", pack_id=pack_id.hex())


def _missing_pack(pack_id: bytes) -> DataLoss:
    return DataLoss("A pack is missing: restore it from a copy.", reason="PACK_MISSING", pack_id=pack_id.hex())
