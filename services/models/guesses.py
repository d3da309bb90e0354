"""Slows down who guesses access codes, and nobody else.

Wrong codes are counted against two budgets, each of which asks for longer and longer pauses:

| budget | what it stops | who is asked to wait |
|---|---|---|
| version and principal | guessing by one principal | that principal, for that version |
| version | guessing by many principals, or by one with many keys | principals that never opened the version |

So a stranger can't lock out whoever has opened the version before, its author first of all: for them their own wrong
codes count alone. An attempt counts before its outcome is known, and is taken back if it succeeds: a hundred attempts
at once are no way around. Everything is in the database: no replica is asked where another refuses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.models import tables as t
from services.shared.database import Database
from services.shared.errors import ResourceExhausted

_c = t.access_code_guesses.c
# In a presenter's place: everybody who has not opened the version yet. No principal's id is empty.
_STRANGERS = ""
_LONGEST_PAUSE = timedelta(minutes=15)
_MAX_DOUBLINGS = 20
_REMEMBERED = timedelta(days=1)
# How long somebody who opened a version is no stranger to it.
_KNOWN = timedelta(days=90)


class AccessCodeThrottled(ResourceExhausted):
    """Too many wrong codes for this version: by this caller, or by callers who never opened it."""

    reason = "ACCESS_CODE_THROTTLED"


@dataclass(frozen=True)
class Budget:
    """Wrong codes in a row that cost nothing, and the pause after the next one; each more doubles it."""

    free: int
    first_pause: timedelta

    def pause(self, failures: int) -> timedelta:
        """How long to wait after that many wrong codes."""
        if failures <= self.free:
            return timedelta()
        doublings = min(failures - self.free - 1, _MAX_DOUBLINGS)
        return min(_LONGEST_PAUSE, self.first_pause * (1 << doublings))


OWN = Budget(free=5, first_pause=timedelta(seconds=8))
ALL_STRANGERS = Budget(free=20, first_pause=timedelta(seconds=8))


@dataclass(frozen=True)
class Attempt:
    """An attempt that is counted; of the strangers' budget, when that was blocked before it and because of it."""

    key_id: str
    presenter: str
    strangers: tuple[datetime, datetime] | None


class Guesses:
    """Counts wrong codes, by the data key that they were to open."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def count(self, key_id: str, presenter: str) -> Attempt:
        """Counts an attempt before it is made. Raises AccessCodeThrottled, which counts nothing."""
        now = self._clock()
        with self._database.write() as connection:
            own = _locked(connection, key_id, presenter, now)
            rows = [(own, OWN)]
            if own.opened_at is None:
                rows.append((_locked(connection, key_id, _STRANGERS, now), ALL_STRANGERS))
            wait = max(row.blocked_until for row, _ in rows) - now
            if wait > timedelta():
                message = "Too many wrong access codes. Wait, then try again."
                raise AccessCodeThrottled(message, retry_after=wait.total_seconds())
            blocked = [now + budget.pause(row.failures + 1) for row, budget in rows]
            for (row, _), until in zip(rows, blocked, strict=True):
                _set(connection, key_id, row.presenter, count=row.failures + 1, blocked_until=until)
        strangers = None if len(rows) == 1 else (rows[1][0].blocked_until, blocked[1])
        return Attempt(key_id, presenter, strangers)

    def opened(self, attempt: Attempt) -> None:
        """The code was right: the presenter's wrong ones are forgotten, and the attempt is none of the strangers'."""
        now = self._clock()
        with self._database.write() as connection:
            _know(connection, attempt.key_id, attempt.presenter, now)
            if attempt.strangers is None:
                return
            row = _locked(connection, attempt.key_id, _STRANGERS, now)
            before, because = attempt.strangers
            # A pause that somebody else has earned meanwhile stays.
            until = before if row.blocked_until == because else row.blocked_until
            _set(connection, attempt.key_id, _STRANGERS, count=max(row.failures - 1, 0), blocked_until=until)

    def know(self, key_id: str, presenter: str) -> None:
        """This presenter has the right code: it locked the key with it."""
        with self._database.write() as connection:
            _know(connection, key_id, presenter, self._clock())


def forget_guesses(connection: sa.Connection, now: datetime) -> None:
    """Deletes what was counted for callers who have left off, and who has not opened a version for long."""
    stale = sa.or_(_c.opened_at.is_(None), _c.opened_at < now - _KNOWN)
    connection.execute(sa.delete(t.access_code_guesses).where(_c.blocked_until < now - _REMEMBERED, stale))


def _locked(
    connection: sa.Connection, key_id: str, presenter: str, now: datetime
) -> "sa.Row[str, int, datetime, datetime | None]":
    """The row, made if it is missing. A presenter's is locked before the strangers', which no one else locks first."""
    row = {"key_id": key_id, "presenter": presenter, "count": 0, "blocked_until": now}
    # The update changes nothing: it locks a row that is there, so that it is still there below.
    t.insert_or_set(connection, t.access_code_guesses, [row], key_id=key_id)
    columns = (_c.presenter, _c.count.label("failures"), _c.blocked_until, _c.opened_at)
    return connection.execute(sa.select(*columns).where(_is(key_id, presenter))).one()


def _know(connection: sa.Connection, key_id: str, presenter: str, now: datetime) -> None:
    row = {"key_id": key_id, "presenter": presenter, "count": 0, "blocked_until": now, "opened_at": now}
    t.insert_or_set(connection, t.access_code_guesses, [row], count=0, blocked_until=now, opened_at=now)


def _set(connection: sa.Connection, key_id: str, presenter: str, **changes: Any) -> None:
    connection.execute(sa.update(t.access_code_guesses).where(_is(key_id, presenter)).values(changes))


def _is(key_id: str, presenter: str) -> sa.ColumnElement[bool]:
    return sa.and_(_c.key_id == key_id, _c.presenter == presenter)
