"""What was last seen of providers, and where their replicas drifted from the primary."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from services.secrets.providers.tables import drift, outbox, states
from services.shared.database import Database


class Kind(StrEnum):
    """How a replica differs from the primary."""

    # The primary has the secret, the replica has not.
    MISSING = "missing"
    # Both have it, with different values.
    DIFFERENT = "different"
    # The replica has it, the primary has not.
    UNEXPECTED = "unexpected"


@dataclass(frozen=True)
class State:
    """Of a provider: why it does not answer, when it was asked; of its comparisons, what is asked for, when the last
    was made, why it could not be.
    """

    error: str = ""
    checked_at: datetime | None = None
    requested_at: datetime | None = None
    repair: bool = False
    compared_at: datetime | None = None
    problem: str = ""

    @property
    def comparing(self) -> bool:
        """Whether a comparison is asked for and not done."""
        return self.requested_at is not None and (self.compared_at is None or self.compared_at < self.requested_at)


@dataclass(frozen=True)
class Drift:
    """A secret that a replica has otherwise."""

    provider: str
    name: str
    kind: Kind
    found_at: datetime


class States:
    """Rows about providers, one each, and about what drifted."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def all(self) -> dict[str, State]:
        """By provider; those that were not looked at yet are missing."""
        c = states.c
        query = sa.select(c.provider, c.error, c.checked_at, c.requested_at, c.repair, c.compared_at, c.problem)
        with self._database.read() as connection:
            return {provider: State(*rest) for provider, *rest in connection.execute(query)}

    def record(self, provider: str, **fields: Any) -> None:
        """Changes these fields of a provider's row."""
        try:
            with self._database.write() as connection:
                changed = connection.execute(sa.update(states).where(states.c.provider == provider).values(fields))
                if not changed.rowcount:
                    connection.execute(sa.insert(states).values(provider=provider, **fields))
        except IntegrityError:  # made meanwhile
            self.record(provider, **fields)

    def request(self, providers: Iterable[str], *, repair: bool) -> None:
        """Asks for comparisons; a repair that was asked for before stays asked for."""
        known, now = self.all(), self._clock()
        for provider in providers:
            state = known.get(provider, State())
            self.record(provider, requested_at=now, repair=repair or (state.comparing and state.repair), problem="")

    def found(self, provider: str, kinds: Sequence[tuple[str, Kind]]) -> None:
        """What a comparison found, in place of what the one before did. What is being carried over is no drift."""
        now = self._clock()
        with self._database.write() as connection:
            connection.execute(sa.delete(drift).where(drift.c.provider == provider))
            waiting = sa.select(outbox.c.name).where(outbox.c.provider == provider)
            pending = set(connection.scalars(waiting))
            rows = [
                {"provider": provider, "name": name, "kind": kind, "found_at": now}
                for name, kind in kinds
                if name not in pending
            ]
            if rows:
                connection.execute(sa.insert(drift), rows)

    def settled(self, provider: str, name: str) -> None:
        """The replica has the secret as the primary has it."""
        gone = sa.delete(drift).where(drift.c.provider == provider, drift.c.name == name)
        with self._database.write() as connection:
            connection.execute(gone)

    def drifted(self) -> dict[str, int]:
        """How many secrets of each replica; one with none is missing."""
        query = sa.select(drift.c.provider, sa.func.count().label("secrets")).group_by(drift.c.provider)
        with self._database.read() as connection:
            return {row.provider: row.secrets for row in connection.execute(query)}

    def drift(
        self, providers: Sequence[str], *, visible: Callable[[str], bool], after: tuple[str, str], limit: int
    ) -> list[Drift]:
        """At most `limit` of what is `visible` by its name, by provider and name, from behind `after`."""
        c = drift.c
        query = sa.select(drift).where(sa.tuple_(c.provider, c.name) > sa.tuple_(*map(sa.literal, after)))
        query = query.where(c.provider.in_(providers)).order_by(c.provider, c.name)
        page: list[Drift] = []
        with self._database.read() as connection:
            for row in connection.execute(query.execution_options(yield_per=500)):
                if visible(row.name):
                    page.append(Drift(row.provider, row.name, Kind(row.kind), row.found_at))
                if len(page) == limit:
                    break
        return page
