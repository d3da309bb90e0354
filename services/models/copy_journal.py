"""What stores lack: rows of `pending_copies`, from before an object is written until its last copy is there."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from services.models import tables as t
from services.shared.database import Database

_FIRST_WAIT = timedelta(seconds=2)
_LONGEST_WAIT = timedelta(minutes=5)


@dataclass(frozen=True)
class PendingCopy:
    """A copy to be made. With `replaces` the store has one that is damaged."""

    store: str
    name: str
    replaces: bool
    noted_at: datetime
    attempts: int


@dataclass(frozen=True)
class Lag:
    """How far a store is behind: copies it lacks, and since when the first of them is due; why the last try failed."""

    objects: int = 0
    since: datetime | None = None
    error: str = ""


class CopyJournal:
    """The copies to be made."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def note(self, name: str, stores: Collection[str], *, replaces: bool = False) -> None:
        """These stores lack the object, or have it damaged. Durable when it returns."""
        if stores:
            with self._database.write() as connection:
                note(connection, ((store, name) for store in stores), self._clock(), replaces=replaces)

    def due(self, store: str, most: int) -> list[PendingCopy]:
        """The copies whose time has come, longest known first."""
        c = t.pending_copies.c
        columns = (c.store, c.name, c.replaces, c.noted_at, c.attempts)
        query = sa.select(*columns).where(c.store == store, c.retry_at <= self._clock())
        with self._database.read() as connection:
            return [PendingCopy(*row) for row in connection.execute(query.order_by(c.retry_at).limit(most))]

    def done(self, copy: PendingCopy) -> None:
        """The store has it, or never needs it."""
        with self._database.write() as connection:
            connection.execute(sa.delete(t.pending_copies).where(_is(copy)))

    def failed(self, copy: PendingCopy, error: str) -> None:
        """Not this time; later and later."""
        wait = min(_FIRST_WAIT * 2 ** min(copy.attempts, 16), _LONGEST_WAIT)
        changes = {"attempts": copy.attempts + 1, "retry_at": self._clock() + wait, "error": error[:255]}
        with self._database.write() as connection:
            connection.execute(sa.update(t.pending_copies).where(_is(copy)).values(changes))

    def hurry(self, store: str) -> None:
        """The store is back: what waited for it waits no longer."""
        late = sa.update(t.pending_copies).where(t.pending_copies.c.store == store)
        with self._database.write() as connection:
            connection.execute(late.values(retry_at=self._clock()))

    def forget(self, name: str) -> None:
        """The object is gone for good."""
        with self._database.write() as connection:
            connection.execute(sa.delete(t.pending_copies).where(t.pending_copies.c.name == name))

    def lags(self) -> dict[str, Lag]:
        """How far each store is behind; one that is not is missing."""
        c = t.pending_copies.c
        query = sa.select(
            c.store, sa.func.count(), sa.func.min(c.noted_at, type_=c.noted_at.type), sa.func.max(c.error)
        )
        with self._database.read() as connection:
            return {store: Lag(*rest) for store, *rest in connection.execute(query.group_by(c.store))}


def note(
    connection: sa.Connection, copies: Iterable[tuple[str, str]], now: datetime, *, replaces: bool = False
) -> None:
    """Notes copies to be made, by store and name."""
    rows = [
        {
            "store": store,
            "name": name,
            "replaces": replaces,
            "noted_at": now,
            "attempts": 0,
            "retry_at": now,
            "error": "",
        }
        for store, name in copies
    ]
    if replaces:
        t.insert_or_set(connection, t.pending_copies, rows, replaces=True)
    else:
        t.insert_missing(connection, t.pending_copies, rows)


def _is(copy: PendingCopy) -> sa.ColumnElement[bool]:
    return sa.and_(t.pending_copies.c.store == copy.store, t.pending_copies.c.name == copy.name)
