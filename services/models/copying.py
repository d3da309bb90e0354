"""Copies an object from one store to another, and believes nothing of it that it has not checked on the way.

No key is needed: a pack names the digests of its blobs, and the index that of each manifest.
"""

import hmac
from collections.abc import Iterator

from blake3 import blake3

from services.models import manifests, packs
from services.models.packs import PackEntry, PackIndex
from services.models.stores.store import ObjectNotFound, Store
from services.shared.errors import DataLoss

# Read at once: a request for each small blob would take longer than its bytes do.
_PIECE = 8 * 1024 * 1024


def copy_pack(source: Store, target: Store, pack_id: bytes) -> None:
    """Copies a pack, a few MiB at a time. DataLoss if the source's is damaged or missing; ObjectExists."""
    key = packs.pack_key(pack_id)
    index = packs.read_index(source, pack_id)
    with target.create(key) as writer:
        writer.append(packs.encode_header(pack_id))
        for piece in _checked_pieces(source, key, index):
            writer.append(piece)
        writer.append(packs.encode_index(index))
        writer.commit()


def check_pack(store: Store, pack_id: bytes) -> None:
    """Reads a pack whole. DataLoss if it is damaged or missing."""
    for _ in _checked_pieces(store, packs.pack_key(pack_id), packs.read_index(store, pack_id)):
        pass


def read_manifest(source: Store, key: str, digest: bytes) -> bytes:
    """A manifest's bytes. DataLoss if they are not those with this digest, or missing."""
    try:
        data = source.read(key, 0, manifests.MAX_MANIFEST + 1)
    except ObjectNotFound:
        raise DataLoss("The manifest is missing.", reason="MANIFEST_MISSING") from None
    if not hmac.compare_digest(manifests.manifest_digest(data), digest):
        raise DataLoss("The manifest is damaged.", reason="MANIFEST_DAMAGED")
    return data


def _checked_pieces(source: Store, key: str, index: PackIndex) -> Iterator[bytes]:
    """The pack between header and index, each blob compared with its digest."""
    end = index.size - packs.index_size(len(index.entries))
    ends = [entry.offset for entry in index.entries[1:]] + [end]
    group: list[PackEntry] = []
    for entry, until in zip(index.entries, ends, strict=True):
        group.append(entry)
        if until - group[0].offset >= _PIECE or until == end:
            yield _read_group(source, key, group, until)
            group = []


def _read_group(source: Store, key: str, group: list[PackEntry], end: int) -> bytes:
    start = group[0].offset
    piece = source.read(key, start, end - start)
    view = memoryview(piece)
    position = 0
    for entry in group:
        at = entry.offset - start
        stored = view[at : at + entry.stored_length]
        # What lies between two blobs is nothing but zeros: a copy has one form, too.
        if any(view[position:at]) or blake3(stored).digest() != entry.ciphertext_digest:
            raise DataLoss("A pack is damaged: restore it from a copy.", reason="PACK_DAMAGED")
        position = at + entry.stored_length
    if len(piece) != end - start or any(view[position:]):
        raise DataLoss("A pack is damaged: restore it from a copy.", reason="PACK_DAMAGED")
    return piece
