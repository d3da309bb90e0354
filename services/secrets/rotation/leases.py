"""Who works on a secret's rotation: one at a time, whatever the number of replicas.

A lease runs out by itself, so nobody has to notice that its holder died. Whatever is recorded under a lease is
recorded in one transaction with the question whether it still holds: who was too slow records nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.secrets.rotation_tables import rotation_runs, rotations
from services.shared.database import Database
from services.shared.ids import new_id

# Longer than any single step takes (they are bounded by timeouts), and renewed before each.
LEASE = timedelta(seconds=60)


class LeaseLost(Exception):
    """Somebody else works on it now, or nobody shall any more."""


@dataclass(frozen=True)
class Lease:
    """The right to work on one secret."""

    id: str
    secret_name: str


class Leases:
    """Gives, renews and takes back leases."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def claim(self) -> Lease | None:
        """The secret that has waited longest for something to be done; None if none waits."""
        now = self._clock()
        due = (
            sa.select(rotations.c.secret_name)
            .where(rotations.c.wake_at <= now, rotations.c.lease.is_(None) | (rotations.c.lease_until <= now))
            .order_by(rotations.c.wake_at)
            .limit(1)
        )
        # Asked first without a lock: nearly always there is nothing, and a writer on SQLite keeps all others waiting.
        with self._database.read() as connection:
            if connection.scalar(due) is None:
                return None
        with self._database.write() as connection:
            name = connection.scalar(due.with_for_update(skip_locked=True))
            if name is None:
                return None
            lease = Lease(new_id(), name)
            this = rotations.c.secret_name == name
            connection.execute(sa.update(rotations).where(this).values(lease=lease.id, lease_until=now + LEASE))
            return lease

    @contextmanager
    def held(self, lease: Lease, /, **changes: Any) -> Iterator[Connection]:
        """A transaction that renews the lease and changes its row. Raises LeaseLost."""
        mine = (rotations.c.secret_name == lease.secret_name) & (rotations.c.lease == lease.id)
        values = {"lease_until": self._clock() + LEASE, **changes}
        with self._database.write() as connection:
            if connection.execute(sa.update(rotations).where(mine).values(values)).rowcount != 1:
                raise LeaseLost
            yield connection

    def release(self, lease: Lease, /, **changes: Any) -> None:
        """Gives it back; unless it is said when, the next thing to do wakes whoever does it. Raises LeaseLost."""
        with self.held(lease, lease=None, lease_until=None, **changes) as connection:
            if "wake_at" not in changes:
                wake(connection, lease.secret_name, self._clock())


def wake(connection: Connection, name: str, now: datetime) -> None:
    """Sets when there is something to do next for a secret: its next run, a retry, the end of a grace, or now."""
    policy = connection.execute(sa.select(rotations).where(rotations.c.secret_name == name)).one()
    retired = sa.select(sa.func.min(rotation_runs.c.retire_at)).where(
        rotation_runs.c.secret_name == name, rotation_runs.c.retired_at.is_(None)
    )
    begun = sa.exists().where(rotation_runs.c.secret_name == name, rotation_runs.c.finished_at.is_(None))
    at_once = now if policy.requested_by or connection.scalar(sa.select(begun)) else None
    moments = [policy.next_run_at, policy.retry_at, connection.scalar(retired), at_once]
    values = {"wake_at": min((moment for moment in moments if moment), default=None)}
    connection.execute(sa.update(rotations).where(rotations.c.secret_name == name).values(values))
