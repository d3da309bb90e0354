"""How much of every quota is used, for all replicas of all services together.

What a key uses is taken out of the quotas of the keys that it was made with as well: who makes keys has no more for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.auth.key_versions import KIND
from services.auth.rights import stored_quotas
from services.auth.tables import api_keys as k
from services.auth.usage_tables import quota_counters as c
from services.shared.database import Database
from services.shared.identity import Quota
from services.shared.quotas import PERIODS, Grant, QuotaUnknown, period_start

# After the longest period, by more than clocks differ.
_FORGOTTEN_AFTER = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class _Counter:
    """One quota in its period: what is left of it, and the row that says so, which is locked."""

    row: sa.ColumnElement[bool]
    left: int
    resets_at: datetime


class QuotaCounters:
    """Counts what is taken out of quotas, by principal, class and period."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def reserve(self, principal: str, quota: Quota, wanted: int) -> Grant:
        """Takes requests out of a quota: as many as there are, at most `wanted`. Raises QuotaUnknown: try again."""
        now = self._clock()
        try:
            with self._database.write() as connection:
                held = [*_makers(connection, principal, quota.usage_class), (principal, quota)]
                # From the first maker down: whoever else locks some of them does so in that order.
                counters = [_counter(connection, name, each, now) for name, each in held]
                left = min(counter.left for counter in counters)
                granted = min(wanted, left)
                for counter in counters if granted else ():
                    connection.execute(sa.update(c).where(counter.row).values(taken=c.c.taken + granted))
        except sa.exc.OperationalError:
            raise QuotaUnknown from None
        # A grant ends with the first period that it was taken from; without one, all that are used up must end.
        ends = [counter.resets_at for counter in counters if granted or not counter.left]
        return Grant(granted, left - granted, min(ends) if granted else max(ends))

    def clean(self) -> None:
        """Deletes the counters of periods that are over."""
        with self._database.write() as connection:
            connection.execute(sa.delete(c).where(c.c.starts_at < self._clock() - _FORGOTTEN_AFTER))


def _counter(connection: sa.Connection, principal: str, quota: Quota, now: datetime) -> _Counter:
    starts_at = period_start(now, quota.per)
    values: dict[str, Any] = {"principal": principal, "usage_class": quota.usage_class, "per": quota.per}
    values["starts_at"] = starts_at
    row = sa.and_(*(c.c[name] == value for name, value in values.items()))
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(c).values(values | {"taken": 0}).on_conflict_do_nothing())
    taken = connection.execute(sa.select(c.c.taken).where(row).with_for_update()).scalar_one()
    # An older token may speak of a larger quota than this one: then nothing is left.
    return _Counter(row, max(0, quota.requests - taken), starts_at + PERIODS[quota.per])


def _makers(connection: sa.Connection, principal: str, usage_class: str) -> list[tuple[str, Quota]]:
    """The keys that a key descends from, the first maker first, with their quotas of the class."""
    kind, _, key_id = principal.partition(":")
    if kind != KIND:
        return []
    columns = k.c.id, k.c.created_by, k.c.quotas
    made = sa.select(*columns, sa.literal(0).label("distance")).where(k.c.id == key_id).cte("made", recursive=True)
    maker = made.c.created_by.startswith(f"{KIND}:") & (k.c.id == sa.func.substr(made.c.created_by, len(KIND) + 2))
    made = made.union_all(sa.select(*columns, made.c.distance + 1).where(maker))
    rows = connection.execute(sa.select(made).where(made.c.distance > 0).order_by(made.c.distance.desc()))
    return [
        (f"{KIND}:{row.id}", quota)
        for row in rows
        for quota in stored_quotas(row.quotas)
        if quota.usage_class == usage_class
    ]
