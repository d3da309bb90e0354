"""Which objects the primary shall have: all, but for what was deleted there alone (`primary_deletion`)."""

import sqlalchemy as sa

from services.models import tables as t


def kept_version() -> sa.ColumnElement[bool]:
    """For a query on `versions`: whether its manifest belongs in the primary."""
    return _kept(t.versions.c.id)


def kept_pack() -> sa.ColumnElement[bool]:
    """For a query on `packs`: whether somebody uses a chunk of it who did not give up the primary's copy."""
    chunk = t.chunks.c.id
    in_pack = t.chunks.c.pack == t.packs.c.id
    used = sa.exists().where(in_pack, t.version_chunks.c.chunk == chunk, _kept(t.version_chunks.c.version))
    held = sa.exists().where(in_pack, t.upload_chunks.c.chunk == chunk)
    return sa.or_(used, held)


def unwanted(connection: sa.Connection, name: str) -> bool:
    """Whether an object that the index knows does not belong in the primary."""
    folder, _, rest = name.partition("/")
    if folder == "packs":
        known = sa.select(t.packs.c.id).where(t.packs.c.pack_id == bytes.fromhex(rest.rpartition("/")[2]))
        kept = known.where(kept_pack())
        # A pack without versions has uploads, or is garbage: either way it is not ours to judge.
        known = known.where(sa.exists().where(t.chunks.c.pack == t.packs.c.id))
    else:
        known = sa.select(t.versions.c.id).where(t.versions.c.manifest_key == name)
        kept = known.where(kept_version())
    return connection.execute(known).first() is not None and connection.execute(kept).first() is None


def _kept(version: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    return ~sa.exists().where(t.primary_deletions.c.version == version)
