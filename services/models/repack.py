"""Repacking: what is left of packs that are mostly garbage moves into new ones, so that the old can be removed.

Blobs move as they are, encrypted: no key is needed, and manifests, which name blobs, stay true. Who is reading the old
pack may go on, since it is removed only a day later.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import sqlalchemy as sa
import structlog
from blake3 import blake3

from services.models import chunk_index, condemned, packs
from services.models import tables as t
from services.models.packs import BLOCK, MAX_PACK, PackEntry, PackIndex
from services.models.replication import ReplicatedStore
from services.models.stores.store import ObjectWriter, Store
from services.shared.database import Database
from services.shared.errors import DataLoss

# A pack is worth the work if less than half would remain, and so many bytes would be saved.
_SAVED = 1024 * 1024
# Packs looked at in one collection.
_MOST_PACKS = 256

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Moving:
    """A chunk on its way: its row, and where its blob is."""

    row: int
    old_pack: int
    pack_id: bytes
    entry: PackEntry


class Repacker:
    """Repacks sparse packs.

    Args:
        random: gives that many random bytes, for ids.
    """

    def __init__(
        self,
        database: Database,
        store: ReplicatedStore,
        clock: Callable[[], datetime],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._random = random

    def repack(self, created_before: datetime) -> int:
        """Moves what is left of sparse packs; returns how many of these are garbage by that.

        Raises StoreUnavailable, StoreFull.
        """
        repacked = 0
        pack: _NewPack | None = None
        try:
            for chunks in self._sparse(created_before):
                try:
                    blobs = [(chunk, self._blob(chunk)) for chunk in chunks]
                except DataLoss:
                    # It stays as it is, damage and all: verification tells whose it is.
                    _log.warning("a damaged pack is not repacked", pack=chunks[0].pack_id.hex())
                    continue
                if pack is not None and not pack.has_room(chunks):
                    repacked += self._finish(pack)
                    pack = None
                pack = pack or _NewPack(self._store, self._random(packs.PACK_ID_BYTES))
                for chunk, blob in blobs:
                    pack.append(chunk, blob)
            if pack is not None:
                repacked += self._finish(pack)
        finally:
            if pack is not None:
                pack.discard()
        return repacked

    def _sparse(self, created_before: datetime) -> Iterator[list[_Moving]]:
        """What is left of each sparse pack; less than half of a pack each time, so it fits into memory and a pack."""
        length = t.chunks.c.stored_length
        space = sa.case((length < BLOCK, length), else_=(length + BLOCK - 1) // BLOCK * BLOCK)
        blocks = sa.func.sum(space, type_=sa.BigInteger)
        listed = (
            sa.select(t.packs.c.id, t.packs.c.size, sa.func.count(t.chunks.c.id).label("chunks"), blocks.label("left"))
            .join(t.chunks, t.chunks.c.pack == t.packs.c.id)
            .where(t.packs.c.died_at.is_(None), t.packs.c.created_at <= created_before, t.packs.c.size >= _SAVED)
            .group_by(t.packs.c.id, t.packs.c.size)
        )
        with self._database.read() as connection:
            rows = connection.execute(listed).all()
        sparse = [row.id for row in rows if _worth_it(row.size, BLOCK + int(row.left) + packs.index_size(row.chunks))]
        for pack in sparse[:_MOST_PACKS]:
            with self._database.read() as connection:
                chunks = _chunks(connection, pack)
            if chunks:
                yield chunks

    def _blob(self, chunk: _Moving) -> memoryview:
        return self._store.sound(packs.pack_key(chunk.pack_id), partial(_sound_blob, chunk))

    def _finish(self, pack: "_NewPack") -> int:
        """Makes the new pack durable and lets the rows say so that are as they were; of how many packs they were.

        None if a pack is condemned: another collection was faster, and everything stays where it is.
        """
        index = pack.seal()
        try:
            self._move(pack, index)
        except condemned.Condemned:
            _log.warning("a new pack was taken for garbage", pack=index.pack_id.hex())
            return 0
        return len({chunk.old_pack for chunk in pack.chunks})

    def _move(self, pack: "_NewPack", index: PackIndex) -> None:
        now = self._clock()
        with self._database.write() as connection:
            t.hold_references(connection, removing=True)
            named = {index.pack_id, *(chunk.pack_id for chunk in pack.chunks)}
            condemned.refuse_condemned(connection, [packs.pack_key(pack_id) for pack_id in named])
            values = {"pack_id": index.pack_id, "size": index.size, "created_at": now}
            number = connection.execute(sa.insert(t.packs).values(values).returning(t.packs.c.id)).scalar_one()
            move = (
                sa.update(t.chunks)
                .where(t.chunks.c.id == sa.bindparam("row"), t.chunks.c.blob_id == sa.bindparam("blob"))
                .where(t.chunks.c.pack == sa.bindparam("old"))
                .values(pack=number, offset=sa.bindparam("place"))
            )
            moved = zip(pack.chunks, index.entries, strict=True)
            connection.execute(
                move,
                [
                    {"row": chunk.row, "blob": entry.blob_id, "old": chunk.old_pack, "place": entry.offset}
                    for chunk, entry in moved
                ],
            )
            chunk_index.bury_empty_packs(connection, now)


class _NewPack:
    """A pack of blobs that are encrypted already."""

    def __init__(self, store: Store, pack_id: bytes) -> None:
        self._pack_id = pack_id
        self._writer: ObjectWriter = store.create(packs.pack_key(pack_id))
        self._writer.append(packs.encode_header(pack_id))
        self._size = BLOCK
        self._entries: list[PackEntry] = []
        self.chunks: list[_Moving] = []

    def has_room(self, chunks: Sequence[_Moving]) -> bool:
        most = packs.aligned(self._size) + sum(packs.aligned(chunk.entry.stored_length) for chunk in chunks)
        return most <= MAX_PACK and len(self.chunks) + len(chunks) <= packs.MAX_ENTRIES

    def append(self, chunk: _Moving, blob: memoryview) -> None:
        at = packs.place(self._size, len(blob))
        self._writer.append(bytes(at - self._size) + blob)
        self._size = at + len(blob)
        self._entries.append(PackEntry(chunk.entry.blob_id, at, len(blob), chunk.entry.ciphertext_digest))
        self.chunks.append(chunk)

    def seal(self) -> PackIndex:
        """When this returns, the pack is durable."""
        end = packs.aligned(self._size)
        index = PackIndex(self._pack_id, end + packs.index_size(len(self._entries)), tuple(self._entries))
        self._writer.append(bytes(end - self._size) + packs.encode_index(index))
        self._writer.commit()
        return index

    def discard(self) -> None:
        """Removes what was written; does nothing after `seal`."""
        self._writer.discard()


def _worth_it(size: int, would_be: int) -> bool:
    return would_be * 2 < size and size - would_be >= _SAVED


def _chunks(connection: sa.Connection, pack: int) -> list[_Moving]:
    c = t.chunks.c
    columns = (c.id, t.packs.c.pack_id, c.blob_id, c.offset, c.stored_length, c.ciphertext_digest)
    found = sa.select(*columns).select_from(t.chunks.join(t.packs)).where(c.pack == pack).order_by(c.offset)
    return [
        _Moving(row.id, pack, row.pack_id, PackEntry(row.blob_id, row.offset, row.stored_length, row.ciphertext_digest))
        for row in connection.execute(found)
    ]


def _sound_blob(chunk: _Moving, store: Store) -> memoryview:
    """The blob as it was written. DataLoss."""
    entry = chunk.entry
    blob = packs.read_blob(store, chunk.pack_id, entry.offset, entry.stored_length)
    if blake3(blob).digest() != entry.ciphertext_digest:
        raise DataLoss("Stored bytes are damaged: restore them from a copy.", reason="CHUNK_DAMAGED")
    return blob
