"""Copies an object from one store to another, and believes nothing of it that it has not checked on the way.

No key is needed: a pack names the digests of its blobs, and the index that of each manifest.
"""

import hmac
from collections.abc import Iterator

from services.models import manifests, packs
from services.models.packs import PackIndex
from services.models.stores.store import ObjectNotFound, Store
from services.shared.errors import DataLoss


def copy_pack(source: Store, target: Store, pack_id: bytes) -> None:
    """Copies a pack, a few MiB at a time. DataLoss if the source's is damaged or missing; ObjectExists."""
    index = packs.read_index(source, pack_id)
    with target.create(packs.pack_key(pack_id)) as writer:
        writer.append(packs.encode_header(pack_id, index.version))
        for piece in _checked_pieces(source, index):
            writer.append(piece)
        writer.append(packs.encode_index(index))
        writer.commit()


def check_pack(store: Store, pack_id: bytes) -> None:
    """Reads a pack whole. DataLoss if it is damaged or missing."""
    for _ in _checked_pieces(store, packs.read_index(store, pack_id)):
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


def _checked_pieces(source: Store, index: PackIndex) -> Iterator[bytes]:
    """The pack between header and index, each blob compared with its digest, and what is between two with zeros."""
    for piece, spans in packs.read_pieces(source, index):
        if not all(packs.sound(entry, span) for entry, span in spans):
            raise DataLoss("A pack is damaged: restore it from a copy.", reason="PACK_DAMAGED")
        yield piece
