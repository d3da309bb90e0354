"""One writer at a time to a secret of a provider, across all replicas of this service.

Some providers have no check-and-set: between comparing and writing nobody else of ours may write.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from services.secrets.providers.tables import leases
from services.shared.database import Database
from services.shared.errors import Aborted
from services.shared.ids import new_id

# Longer than any call to a provider takes, with its repetitions.
HELD = timedelta(seconds=120)
_PATIENCE = 15.0
_LOOK = 0.05


class SecretBusy(Aborted):
    reason = "SECRET_BUSY"

    def __init__(self, name: str) -> None:
        super().__init__(f"Somebody else is writing {name!r} to this provider. Repeat the change.", secret=name)


class Leases:
    """Leases on secrets of providers, in the database."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    @contextmanager
    def holding(self, provider: str, name: str) -> Iterator[None]:
        """Nobody else has it while the block runs; waits for who does. Raises SecretBusy."""
        holder, deadline = new_id(), time.monotonic() + _PATIENCE
        while not self.take(provider, name, holder):
            if time.monotonic() > deadline:
                raise SecretBusy(name)
            time.sleep(_LOOK)
        try:
            yield
        finally:
            self.release(provider, name, holder)

    def take(self, provider: str, name: str, holder: str, lasts: timedelta = HELD) -> bool:
        """Whether it is the holder's from now on; who has it already keeps it for longer."""
        c, now = leases.c, self._clock()
        held = {"holder": holder, "held_until": now + lasts}
        free = sa.or_(c.holder == holder, c.held_until <= now)
        try:
            with self._database.write() as connection:
                taken = connection.execute(sa.update(leases).where(_is(provider, name), free).values(held))
                if taken.rowcount:
                    return True
                if connection.execute(sa.select(c.holder).where(_is(provider, name))).first():
                    return False
                connection.execute(sa.insert(leases).values(provider=provider, name=name, **held))
                return True
        except IntegrityError:  # somebody was faster
            return False

    def release(self, provider: str, name: str, holder: str) -> None:
        with self._database.write() as connection:
            connection.execute(sa.delete(leases).where(_is(provider, name), leases.c.holder == holder))


def _is(provider: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(leases.c.provider == provider, leases.c.name == name)
