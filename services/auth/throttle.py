"""Slows down who guesses passwords, and nobody else (NIST SP 800-63B-4, section 3.2.2).

Failed sign-ins are counted against three scopes, each of which asks for longer and longer pauses:

| scope | what it stops | who is asked to wait |
|---|---|---|
| e-mail and network | guessing one person's password | that network, for that person |
| network | trying few passwords on many people | that network, unless the person signed in from it before |
| e-mail | guessing one person's password from many networks | networks that the person never signed in from |

So nobody can lock another person out from elsewhere: from a network where they have signed in before only failures
from that network count, and sessions go on without a sign-in. An attempt counts before its outcome is known, and is
taken back if it succeeds: a hundred attempts at once are no way around. E-mail addresses that nobody has count alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.auth.networks import network
from services.auth.pepper import Pepper
from services.auth.user_tables import sign_in_failures as f
from services.shared.database import Database
from services.shared.errors import ResourceExhausted

# The longest pause; the first takes a second and each doubles.
LONGEST_PAUSE = timedelta(minutes=15)
_MAX_DOUBLINGS = 20
# Rows kept at most: a flood from everywhere fills no disk.
_MAX_ROWS = 100_000


class SignInThrottled(ResourceExhausted):
    reason = "SIGN_IN_THROTTLED"


@dataclass(frozen=True, slots=True)
class Limit:
    """So many failures are free; they are forgotten so long after the last one."""

    free: int
    memory: timedelta

    def pause(self, failures: int) -> timedelta:
        """How long to wait after that many failures."""
        if failures < self.free:
            return timedelta()
        return min(LONGEST_PAUSE, timedelta(seconds=2 ** min(failures - self.free, _MAX_DOUBLINGS)))


PAIR = Limit(free=5, memory=timedelta(hours=24))
# Many people share the address of an office.
NETWORK = Limit(free=30, memory=timedelta(hours=1))
ACCOUNT = Limit(free=20, memory=timedelta(hours=24))


@dataclass(frozen=True, slots=True)
class Scope:
    """What failures are counted against: an HMAC, so that nothing typed is stored."""

    key: bytes
    limit: Limit


@dataclass(frozen=True, slots=True)
class Count:
    """One scope's failures with this attempt, and its pauses with and without it."""

    scope: Scope
    failures: int
    blocked_until: datetime
    before: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that is counted. The first scope is the caller's own."""

    counts: tuple[Count, ...]


class Throttle:
    """Counts failures, in the database, for all replicas."""

    def __init__(self, database: Database, pepper: Pepper, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock

    def sign_in_scopes(self, email_key: str, address: str, *, known: bool) -> list[Scope]:
        """What a sign-in counts against; `known` if the person has signed in from there before."""
        where = network(address)
        own = self._scope(PAIR, "pair", email_key, where)
        return (
            [own] if known else [own, self._scope(NETWORK, "network", where), self._scope(ACCOUNT, "email", email_key)]
        )

    def session_scopes(self, session_id: str) -> list[Scope]:
        """What a wrong current password counts against: the session that sent it, whose token may be stolen."""
        return [self._scope(PAIR, "session", session_id)]

    def admit(self, scopes: Sequence[Scope]) -> Attempt:
        """Counts an attempt. Raises SignInThrottled, which counts nothing, if one of the scopes must wait."""
        now = self._clock()
        with self._database.write() as connection:
            rows = self._locked(connection, scopes, now)
            wait = max(row.blocked_until for row in rows.values()) - now
            if wait > timedelta():
                seconds = int(wait.total_seconds()) + 1
                raise SignInThrottled(f"Too many attempts. Try again in {seconds} s.", retry_after=seconds)
            counts = tuple(_count(scope, rows[scope.key], now) for scope in scopes)
            for count in counts:
                forgotten = now + count.scope.limit.memory
                values = {"failures": count.failures, "blocked_until": count.blocked_until, "forgotten_at": forgotten}
                connection.execute(sa.update(f).where(f.c.scope == count.scope.key).values(values))
        return Attempt(counts)

    def succeeded(self, attempt: Attempt) -> None:
        """Forgets the failures of the caller's own scope, and takes the attempt out of the others."""
        own, *others = attempt.counts
        with self._database.write() as connection:
            connection.execute(sa.delete(f).where(f.c.scope == own.scope.key))
            self._take_back(connection, others)

    def withdraw(self, attempt: Attempt) -> None:
        """Takes an attempt back that was not judged."""
        with self._database.write() as connection:
            self._take_back(connection, attempt.counts)

    def clean(self) -> None:
        """Deletes what is forgotten, and of too many rows those that would be next."""
        with self._database.write() as connection:
            connection.execute(sa.delete(f).where(f.c.forgotten_at <= self._clock()))
            newest = sa.select(f.c.forgotten_at).order_by(f.c.forgotten_at.desc()).offset(_MAX_ROWS).limit(1)
            oldest_kept = connection.scalar(newest)
            if oldest_kept is not None:
                connection.execute(sa.delete(f).where(f.c.forgotten_at <= oldest_kept))

    def _scope(self, limit: Limit, *parts: str) -> Scope:
        return Scope(self._pepper.hash("\0".join(("throttle", *parts))), limit)

    def _locked(self, connection: sa.Connection, scopes: Sequence[Scope], now: datetime) -> dict[bytes, Any]:
        """The scopes' rows, made where they are missing; locked in one order, so that two attempts never wait for each
        other."""
        keys = sorted(scope.key for scope in scopes)
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        for key in keys:
            row = {"scope": key, "failures": 0, "blocked_until": now, "forgotten_at": now}
            # The update changes nothing: it locks a row that is there, so that it is still there below.
            locked = insert(f).values(row).on_conflict_do_update(index_elements=[f.c.scope], set_={"scope": key})
            connection.execute(locked)
        query = sa.select(f).where(f.c.scope.in_(keys))
        return {row.scope: row for row in connection.execute(query)}

    @staticmethod
    def _take_back(connection: sa.Connection, counts: Sequence[Count]) -> None:
        for count in sorted(counts, key=lambda count: count.scope.key):
            # A pause that somebody else has earned meanwhile stays.
            mine = f.c.blocked_until == count.blocked_until
            values = {
                "failures": sa.case((f.c.failures > 0, f.c.failures - 1), else_=0),
                "blocked_until": sa.case(
                    (mine, sa.literal(count.before, f.c.blocked_until.type)), else_=f.c.blocked_until
                ),
            }
            connection.execute(sa.update(f).where(f.c.scope == count.scope.key).values(values))


def _count(scope: Scope, row: Any, now: datetime) -> Count:
    failures = (0 if row.forgotten_at <= now else row.failures) + 1
    return Count(scope, failures, now + scope.limit.pause(failures), row.blocked_until)
