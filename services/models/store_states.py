"""What is known of each store, and who works on it: rows of `store_states`."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.models import tables as t
from services.shared.database import Database

# For how long a process that works on a store keeps others from it, after each object.
_HELD = timedelta(minutes=2)


@dataclass(frozen=True)
class StoreState:
    """What was last seen of a store. `error` is empty if it answered."""

    error: str
    checked_at: datetime
    synced_at: datetime | None
    repair_requested_at: datetime | None
    repaired_at: datetime | None


class StoreStates:
    """Remembers them for all processes."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def all(self) -> dict[str, StoreState]:
        c = t.store_states.c
        query = sa.select(c.store, c.error, c.checked_at, c.synced_at, c.repair_requested_at, c.repaired_at)
        with self._database.read() as connection:
            return {store: StoreState(*rest) for store, *rest in connection.execute(query)}

    def record(self, store: str, **changes: Any) -> None:
        """Sets columns of a store's row, which is made if it is not there."""
        self._record([store], self._clock(), **changes)

    def request_repair(self, stores: Collection[str]) -> None:
        """Asks whoever works on these to compare all that they have with all that they shall have."""
        self._record(stores, self._clock(), repair_requested_at=self._clock())

    def hold(self, store: str, holder: str) -> bool:
        """Whether this process may work on the store for the next minutes: only one does."""
        c = t.store_states.c
        now = self._clock()
        free = sa.or_(c.holder == holder, c.held_until.is_(None), c.held_until <= now)
        take = sa.update(t.store_states).where(c.store == store, free).values(holder=holder, held_until=now + _HELD)
        with self._database.write() as connection:
            return connection.execute(take).rowcount == 1

    def release(self, store: str, holder: str) -> None:
        c = t.store_states.c
        give = sa.update(t.store_states).where(c.store == store, c.holder == holder).values(held_until=None)
        with self._database.write() as connection:
            connection.execute(give)

    def _record(self, stores: Collection[str], now: datetime, **changes: Any) -> None:
        rows = [{"store": store, "error": "", "checked_at": now, **changes} for store in stores]
        if rows:
            with self._database.write() as connection:
                t.insert_or_set(connection, t.store_states, rows, **changes)
