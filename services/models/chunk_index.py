"""Where chunks are, and who holds them: rows of `chunks`, `packs`, `version_chunks`, `upload_chunks`.

Plain functions on a connection: what belongs together stands in one transaction of the caller's. Those that write
expect `tables.hold_references` before.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.models import tables as t
from services.models.pack_writer import SealedPack


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A durable chunk: what is needed to find and to open it. `pack_id` is the pack's own id, `id` the row's."""

    id: int
    chunk_id: bytes
    blob_id: bytes
    salt: bytes
    pack_id: bytes
    offset: int
    stored_length: int
    plain_length: int
    ciphertext_digest: bytes
    codec: int


def find(
    connection: sa.Connection, manager_id: str, chunk_ids: Collection[bytes], *, sent_in: str | None = None
) -> dict[bytes, ChunkRow]:
    """The manager's chunks among these ids, by id; with `sent_in` only those that came in this upload."""
    c = t.chunks.c
    source = t.chunks.join(t.packs)
    if sent_in is not None:
        source = source.join(t.upload_chunks, _sent_in(sent_in))
    query = sa.select(*_columns()).select_from(source).where(c.manager_id == manager_id)
    found: dict[bytes, ChunkRow] = {}
    for batch in t.batches(list(chunk_ids)):
        rows = connection.execute(query.where(c.chunk_id.in_(batch)))
        found.update((row.chunk_id, ChunkRow(*row)) for row in rows)
    return found


def of_version(connection: sa.Connection, version: int) -> dict[bytes, ChunkRow]:
    """The chunks of a version, by the ids of their blobs."""
    source = t.chunks.join(t.packs).join(t.version_chunks, t.version_chunks.c.chunk == t.chunks.c.id)
    query = sa.select(*_columns()).select_from(source).where(t.version_chunks.c.version == version)
    return {row.blob_id: ChunkRow(*row) for row in connection.execute(query)}


def still_there(connection: sa.Connection, rows: Sequence[ChunkRow]) -> set[int]:
    """Those of the rows, by `id`, that exist unchanged; ids may be used again, blob ids are not."""
    blobs = {row.id: row.blob_id for row in rows}
    query = sa.select(t.chunks.c.id, t.chunks.c.blob_id)
    return {
        row.id
        for batch in t.batches(list(blobs))
        for row in connection.execute(query.where(t.chunks.c.id.in_(batch)))
        if blobs[row.id] == row.blob_id
    }


def lease(connection: sa.Connection, upload_id: str, rows: Collection[ChunkRow], *, sent: bool) -> None:
    """Keeps the chunks for the upload. `sent` is remembered even where the lease was there before."""
    leases = [{"upload": upload_id, "chunk": row.id, "sent": sent} for row in rows]
    if sent:
        t.insert_or_set(connection, t.upload_chunks, leases, sent=True)
    else:
        t.insert_missing(connection, t.upload_chunks, leases)


def release(connection: sa.Connection, upload_id: str) -> None:
    """Ends all leases of an upload."""
    connection.execute(sa.delete(t.upload_chunks).where(t.upload_chunks.c.upload == upload_id))


def record_pack(connection: sa.Connection, manager_id: str, upload_id: str, pack: SealedPack, now: datetime) -> None:
    """Records a durable pack and its chunks, and leases them.

    A chunk that another upload stored meanwhile keeps its row, which is leased instead; ours in the pack is garbage.
    """
    values = {"pack_id": pack.pack_id, "size": pack.size, "created_at": now}
    number = connection.execute(sa.insert(t.packs).values(values).returning(t.packs.c.id)).scalar_one()
    rows = [
        {
            "manager_id": manager_id,
            "chunk_id": chunk.chunk_id,
            "blob_id": chunk.blob_id,
            "salt": chunk.salt,
            "pack": number,
            "offset": chunk.offset,
            "stored_length": chunk.stored_length,
            "plain_length": chunk.plain_length,
            "ciphertext_digest": chunk.ciphertext_digest,
            "codec": chunk.codec,
        }
        # In one order for everybody: two that insert the same chunks must not wait for each other.
        for chunk in sorted(pack.chunks, key=lambda chunk: chunk.chunk_id)
    ]
    t.insert_missing(connection, t.chunks, rows)
    stored = find(connection, manager_id, [chunk.chunk_id for chunk in pack.chunks])
    lease(connection, upload_id, stored.values(), sent=True)


def drop_version(connection: sa.Connection, version: int, now: datetime) -> tuple[int, int]:
    """Ends a version's references and deletes the chunks that nothing else holds.

    Returns how many were deleted, and how many others still use. With a row its salt is gone: nobody, having the
    domain secret and the pack, can open that blob again.
    """
    chunk_ids = sa.select(t.version_chunks.c.chunk).where(t.version_chunks.c.version == version)
    candidates = [row.chunk for row in connection.execute(chunk_ids)]
    connection.execute(sa.delete(t.version_chunks).where(t.version_chunks.c.version == version))
    deleted = 0
    for batch in t.batches(candidates):
        deleted += _delete_unheld(connection, t.chunks.c.id.in_(batch), now)
    return deleted, len(candidates) - deleted


def drop_unheld(connection: sa.Connection, now: datetime) -> int:
    """Deletes every chunk that no version and no upload holds; returns their number."""
    return _delete_unheld(connection, sa.true(), now)


def _delete_unheld(connection: sa.Connection, which: sa.ColumnElement[bool], now: datetime) -> int:
    chunk = t.chunks.c.id
    unheld = sa.and_(
        which,
        ~sa.exists().where(t.version_chunks.c.chunk == chunk),
        ~sa.exists().where(t.upload_chunks.c.chunk == chunk),
    )
    touched = [row.pack for row in connection.execute(sa.delete(t.chunks).where(unheld).returning(t.chunks.c.pack))]
    for batch in t.batches(sorted(set(touched))):
        bury_empty_packs(connection, now, t.packs.c.id.in_(batch))
    return len(touched)


def bury_empty_packs(connection: sa.Connection, now: datetime, which: sa.ColumnElement[bool] | None = None) -> None:
    """Marks packs without a chunk as dead."""
    empty = ~sa.exists().where(t.chunks.c.pack == t.packs.c.id)
    condition = sa.and_(sa.true() if which is None else which, empty, t.packs.c.died_at.is_(None))
    connection.execute(sa.update(t.packs).where(condition).values(died_at=now))


def _columns() -> list[sa.Column[Any]]:
    """As ChunkRow has them."""
    c = t.chunks.c
    where = [c.id, c.chunk_id, c.blob_id, c.salt, t.packs.c.pack_id, c.offset, c.stored_length]
    return [*where, c.plain_length, c.ciphertext_digest, c.codec]


def _sent_in(upload_id: str) -> sa.ColumnElement[bool]:
    lease = t.upload_chunks.c
    return sa.and_(lease.chunk == t.chunks.c.id, lease.upload == upload_id, lease.sent)
