"""How much of every quota is used, for all replicas of all services together."""

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.auth.usage_tables import quota_counters as c
from services.shared.database import Database
from services.shared.identity import Quota
from services.shared.quotas import PERIODS, Grant, QuotaUnknown, period_start

# After the longest period, by more than clocks differ.
_FORGOTTEN_AFTER = timedelta(days=2)


class QuotaCounters:
    """Counts what is taken out of quotas, by principal, class and period."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def reserve(self, principal: str, quota: Quota, wanted: int) -> Grant:
        """Takes requests out of a quota: as many as there are, at most `wanted`. Raises QuotaUnknown: try again."""
        starts_at = period_start(self._clock(), quota.per)
        counter = {
            "principal": principal,
            "usage_class": quota.usage_class,
            "per": quota.per,
            "starts_at": starts_at,
        }
        row = sa.and_(*(c.c[name] == value for name, value in counter.items()))
        try:
            with self._database.write() as connection:
                dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
                connection.execute(dialect.insert(c).values(counter | {"taken": 0}).on_conflict_do_nothing())
                taken = connection.execute(sa.select(c.c.taken).where(row).with_for_update()).scalar_one()
                # An older token may speak of a larger quota than this one: then nothing is left.
                left = max(0, quota.requests - taken)
                granted = min(wanted, left)
                if granted:
                    connection.execute(sa.update(c).where(row).values(taken=taken + granted))
        except sa.exc.OperationalError:
            raise QuotaUnknown from None
        return Grant(granted, left - granted, starts_at + PERIODS[quota.per])

    def clean(self) -> None:
        """Deletes the counters of periods that are over."""
        with self._database.write() as connection:
            connection.execute(sa.delete(c).where(c.c.starts_at < self._clock() - _FORGOTTEN_AFTER))
