"""Whose index this is: before anything is removed from the stores, the index proves that it is theirs, and up to date.

The stores hold an object `index/<id>/<generation>`. An empty database finds another's id there; one that was restored
from a backup finds that somebody took the generation which would be its next. Either would take for garbage what it has
forgotten, and destroy it, keys included: so it removes nothing until it is rebuilt from the stores.
"""

from contextlib import suppress

import sqlalchemy as sa
import structlog

from services.models import tables as t
from services.models.stores.store import ObjectExists, Store
from services.shared.database import Database
from services.shared.errors import FailedPrecondition
from services.shared.ids import new_id

_FOLDER = "index/"
# Markers of past generations that are kept.
_KEPT = 2
_LOST = "The stores hold weights that this index does not know: it is another's or new. Run: strongroom admin rebuild"
_BEHIND = (
    "The stores hold a later generation of this index: it was restored from a backup. Run: strongroom admin rebuild"
)

_log = structlog.get_logger()


class IndexStale(FailedPrecondition):
    """The index is not that of the stores, or an old one."""

    reason = "INDEX_STALE"


class IndexIdentity:
    """The index's name and generation, in the database and in the store `where`: the primary."""

    def __init__(self, database: Database, where: Store) -> None:
        self._database = database
        self._where = where

    def ensure(self) -> None:
        """At the start: makes the identity of a new index, and sees whether the store has another's.

        Raises StoreUnavailable.
        """
        with self._database.read() as connection:
            if connection.execute(sa.select(t.index_identity.c.id)).first() is not None:
                return  # and no store is asked: one that is down must not keep the service from starting
        marked = self._marked()
        # A replica that starts at the same moment and inserts first has done the work.
        with suppress(sa.exc.IntegrityError), self._database.write() as connection:
            if connection.execute(sa.select(t.index_identity.c.id)).first() is not None:
                return
            known = connection.execute(sa.select(t.versions.c.id).limit(1)).first() is not None
            # An index of before there were identities knows its versions; a new one is told by what it does not know.
            lost = bool(marked) or (not known and next(iter(self._where.list("manifests/")), None) is not None)
            row = {"id": new_id(), "generation": 0, "stranger": _LOST if lost else ""}
            connection.execute(sa.insert(t.index_identity).values(row))
        if lost:
            _log.error(_LOST)

    def problem(self) -> str:
        """Why the index does not fit the stores; empty if it does."""
        with self._database.read() as connection:
            return connection.scalar(sa.select(t.index_identity.c.stranger)) or ""

    def prove(self) -> None:
        """Before a removal: takes the next generation. Raises IndexStale, StoreUnavailable."""
        with self._database.write() as connection:
            row = connection.execute(sa.select(t.index_identity).with_for_update()).one()
            if row.stranger:
                raise IndexStale(row.stranger)
            generation = row.generation + 1
            connection.execute(sa.update(t.index_identity).values(generation=generation))
        try:
            self._where.put(f"{_FOLDER}{row.id.lower()}/{generation:08d}", b"An index of these objects.\n")
        except ObjectExists:
            raise self._refused(row.id, _BEHIND) from None
        marked = self._marked()
        if any(not key.startswith(f"{_FOLDER}{row.id.lower()}/") for key in marked):
            raise self._refused(row.id, _LOST)
        for key in marked:
            if int(key.rpartition("/")[2]) <= generation - _KEPT:
                self._where.delete(key)

    def take_over(self) -> None:
        """After a rebuild: the stores are this index's from now on, and no other's."""
        marked = self._marked()
        name = new_id()
        self._where.put(f"{_FOLDER}{name.lower()}/{0:08d}", b"An index of these objects.\n")
        with self._database.write() as connection:
            connection.execute(sa.update(t.index_identity).values(id=name, generation=0, stranger=""))
        for key in marked:
            self._where.delete(key)

    def _refused(self, name: str, why: str) -> IndexStale:
        with self._database.write() as connection:
            mine = t.index_identity.c.id == name  # it may have been rebuilt meanwhile
            connection.execute(sa.update(t.index_identity).where(mine).values(stranger=why))
        _log.error(why)
        return IndexStale(why)

    def _marked(self) -> list[str]:
        return [found.key for found in self._where.list(_FOLDER)]
