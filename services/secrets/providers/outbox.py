"""What replicas may lack: a row for each secret that changed, written in the transaction that changes it.

A row has no value. Who carries it out reads the primary as it is then, so rows of one secret merge, may be repeated,
and come to the same in any order.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.secrets.providers.tables import outbox
from services.secrets.tables import secret_versions, secrets
from services.shared.database import Database
from services.shared.ids import new_id

_FIRST_WAIT = timedelta(seconds=2)
_LONGEST_WAIT = timedelta(minutes=5)


@dataclass(frozen=True)
class Change:
    """A secret that a replica may have otherwise."""

    provider: str
    name: str
    generation: str
    attempts: int


@dataclass(frozen=True)
class Lag:
    """How far a replica is behind: how many secrets, since when the first of them, why the last try failed."""

    secrets: int = 0
    since: datetime | None = None
    error: str = ""


class Outbox:
    """The changes that replicas have not seen.

    Args:
        replicas: names of the providers that follow the primary.
    """

    def __init__(self, database: Database, replicas: Sequence[str], clock: Callable[[], datetime]) -> None:
        self._database = database
        self._replicas = replicas
        self._clock = clock

    def changed(self, connection: sa.Connection, name: str) -> None:
        """The transaction changes this secret."""
        self._note(connection, ((replica, name) for replica in self._replicas))

    def note(self, provider: str, names: Iterable[str]) -> None:
        """The replica shall be made to have these as the primary has them."""
        with self._database.write() as connection:
            self._note(connection, ((provider, name) for name in names))

    def note_expired(self, provider: str, since: datetime, until: datetime) -> None:
        """What expired in between: nobody wrote it, and the replica shall not have it any more than the primary."""
        v = secret_versions.c
        current = sa.and_(v.secret_name == secrets.c.name, v.version == secrets.c.current_version)
        expired = sa.select(secrets.c.name).join(secret_versions, current)
        with self._database.read() as connection:
            names = connection.scalars(expired.where(v.expires_at > since, v.expires_at <= until)).all()
        if names:
            self.note(provider, names)

    def due(self, provider: str, most: int) -> list[Change]:
        """The changes whose time has come, longest known first."""
        c = outbox.c
        query = sa.select(c.provider, c.name, c.generation, c.attempts).where(
            c.provider == provider, c.retry_at <= self._clock()
        )
        with self._database.read() as connection:
            return [Change(*row) for row in connection.execute(query.order_by(c.retry_at).limit(most))]

    def done(self, change: Change) -> None:
        """The replica has it; unless it changed again meanwhile."""
        with self._database.write() as connection:
            connection.execute(sa.delete(outbox).where(_is(change)))

    def failed(self, change: Change, error: str) -> None:
        """Not this time; later and later."""
        wait = min(_FIRST_WAIT * 2 ** min(change.attempts, 16), _LONGEST_WAIT)
        changes = {"attempts": change.attempts + 1, "retry_at": self._clock() + wait, "error": error[:255]}
        with self._database.write() as connection:
            connection.execute(sa.update(outbox).where(_is(change)).values(changes))

    def hurry(self, provider: str) -> None:
        """The replica is back: what waited for it waits no longer."""
        with self._database.write() as connection:
            late = sa.update(outbox).where(outbox.c.provider == provider)
            connection.execute(late.values(retry_at=self._clock()))

    def pending(self, provider: str) -> set[str]:
        """The names of all that it may have otherwise."""
        with self._database.read() as connection:
            return set(connection.scalars(sa.select(outbox.c.name).where(outbox.c.provider == provider)))

    def lags(self) -> dict[str, Lag]:
        """How far each replica is behind; one that is not is missing."""
        c = outbox.c
        query = sa.select(
            c.provider, sa.func.count(), sa.func.min(c.noted_at, type_=c.noted_at.type), sa.func.max(c.error)
        )
        with self._database.read() as connection:
            return {provider: Lag(*rest) for provider, *rest in connection.execute(query.group_by(c.provider))}

    def _note(self, connection: sa.Connection, changes: Iterable[tuple[str, str]]) -> None:
        now = self._clock()
        fresh = {"attempts": 0, "retry_at": now, "error": ""}
        rows: list[dict[str, Any]] = [
            {"provider": provider, "name": name, "generation": new_id(), "noted_at": now} | fresh
            for provider, name in changes
        ]
        if rows:
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            written = insert(outbox)
            # `noted_at` stays: it has been behind since then.
            again = {column: written.excluded[column] for column in ("generation", *fresh)}
            connection.execute(written.on_conflict_do_update(index_elements=["provider", "name"], set_=again), rows)


def _is(change: Change) -> sa.ColumnElement[bool]:
    c = outbox.c
    return sa.and_(c.provider == change.provider, c.name == change.name, c.generation == change.generation)
