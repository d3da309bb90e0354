"""Sessions: a sign-in and the family of refresh tokens that comes of it (RFC 9700, section 4.14.2).

A refresh token works once. One that is shown a second time was stolen, from its owner or by whoever shows it now, so
the whole session ends. There is no grace for a client that lost the answer and asks again with the same token: within
that grace a thief would be taken for the client. Such a client signs in again; one that asks twice at the same time is
told apart from a thief by nothing, and signs in again too.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from services.auth import key_format
from services.auth.pepper import Pepper
from services.auth.user_tables import known_addresses, refresh_tokens, sessions, users
from services.shared.database import Database
from services.shared.errors import NotFound, Unauthenticated
from services.shared.ids import new_id

KIND = "session"
_MARK = "srr_"
# 43 characters of 62 are 256 random bits.
_SECRET_CHARACTERS = 43
_TOKEN = re.compile(rf"{_MARK}[0-9A-Za-z]{{{_SECRET_CHARACTERS + key_format.CHECKSUM_CHARACTERS}}}")
# Sessions and networks that a user has at most; the oldest make room.
_MAX_SESSIONS, _MAX_NETWORKS = 100, 50
# A session that is over is remembered for as long as services ask for revocations, and then some.
_FORGOTTEN_AFTER = timedelta(days=1)
_NETWORK_FORGOTTEN_AFTER = timedelta(days=90)
# Asked at every request with a user's token: building the statement anew would cost more than running it.
_STATE = sa.select(sessions.c.ended_at, sessions.c.expires_at).where(sessions.c.id == sa.bindparam("id"))

_log = structlog.get_logger()


class RefreshTokenInvalid(Unauthenticated):
    reason = "REFRESH_TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__("The refresh token is not valid, or its session has ended. Sign in again.")


class RefreshTokenReused(Unauthenticated):
    reason = "REFRESH_TOKEN_REUSED"

    def __init__(self, user_id: str) -> None:
        super().__init__("This refresh token was used before, so its session has ended. Sign in again.")
        # For the audit log; whoever shows the token is not told.
        self.user_id = user_id


class SessionNotFound(NotFound):
    reason = "SESSION_NOT_FOUND"


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in that lasts."""

    id: str
    user_id: str
    address: str
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """A session ends when it was not refreshed for `idle`, and `total` after the sign-in whatever happens."""

    idle: timedelta
    total: timedelta

    def end(self, created_at: datetime, now: datetime) -> datetime:
        return min(now + self.idle, created_at + self.total)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A session and the one refresh token that continues it; with the row of its user."""

    session: Session
    token: str = field(repr=False)
    user: Any = field(repr=False)


class Sessions:
    """The sessions of all users: a CredentialSource. Whoever changes one has locked its user's row."""

    def __init__(self, database: Database, pepper: Pepper, lifetimes: Lifetimes, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._pepper = pepper
        self._lifetimes = lifetimes
        self._clock = clock

    def open(self, connection: sa.Connection, user: Any, address: str, network: str) -> Refreshed:
        """Starts a session of the user with that row, and remembers where it was started."""
        now = self._clock()
        made = Session(new_id(), user.id, address, now, now, self._lifetimes.end(now, now))
        columns = ("id", "user_id", "address", "created_at", "refreshed_at", "expires_at")
        connection.execute(sa.insert(sessions).values({name: getattr(made, name) for name in columns}))
        surplus = (
            sa.select(sessions.c.id).where(_live(user.id, now)).order_by(sessions.c.id.desc()).offset(_MAX_SESSIONS)
        )
        for session_id in connection.scalars(surplus.limit(_MAX_SESSIONS)).all():
            end_sessions(connection, user.id, now, only=session_id)
        self._remember(connection, user.id, network, now)
        return Refreshed(made, self._new_token(connection, made.id), user)

    def known(self, user_id: str, network: str) -> bool:
        """Whether the user has signed in from that network before."""
        k = known_addresses
        query = sa.select(k.c.user_id).where(k.c.user_id == user_id, k.c.address_hash == self._network_hash(network))
        with self._database.read() as connection:
            return connection.scalar(query) is not None

    def refresh(self, text: str) -> Refreshed:
        """Exchanges a refresh token for the next one. Raises RefreshTokenInvalid or RefreshTokenReused."""
        token_hash, now = self._hash(text), self._clock()
        with self._database.write() as connection:
            user, session = self._family(connection, token_hash)
            if not user.is_active or session.ended_at is not None or session.expires_at <= now:
                raise RefreshTokenInvalid
            unused = (refresh_tokens.c.token_hash == token_hash, refresh_tokens.c.used_at.is_(None))
            first = connection.execute(sa.update(refresh_tokens).where(*unused).values(used_at=now)).rowcount == 1
            if first:
                end = self._lifetimes.end(session.created_at, now)
                this = sessions.c.id == session.id
                connection.execute(sa.update(sessions).where(this).values(refreshed_at=now, expires_at=end))
                renewed = Session(session.id, user.id, session.address, session.created_at, now, end)
                return Refreshed(renewed, self._new_token(connection, session.id), user)
            end_sessions(connection, user.id, now, only=session.id)
        _log.warning("auth.refresh_token_reused", principal=f"user:{user.id}", session=session.id)
        raise RefreshTokenReused(user.id)

    def end_by_token(self, text: str) -> str:
        """Ends the session of a refresh token, also of a used one. Returns the user's id, empty if there is none."""
        try:
            token_hash = self._hash(text)
            with self._database.write() as connection:
                user, session = self._family(connection, token_hash)
                end_sessions(connection, user.id, self._clock(), only=session.id)
                return str(user.id)
        except RefreshTokenInvalid:
            return ""

    def of_user(self, user_id: str) -> list[Session]:
        """The user's sessions, the latest first."""
        query = sa.select(sessions).where(_live(user_id, self._clock())).order_by(sessions.c.id.desc())
        with self._database.read() as connection:
            return [_session(row) for row in connection.execute(query)]

    def end(self, user_id: str, session_id: str = "") -> int:
        """Ends one session of the user, or all; how many. Raises SessionNotFound if the one is not there."""
        with self._database.write() as connection:
            connection.execute(sa.select(users.c.id).where(users.c.id == user_id).with_for_update())
            ended = end_sessions(connection, user_id, self._clock(), only=session_id)
        if session_id and not ended:
            raise SessionNotFound(f"You have no session {session_id}.", id=session_id)
        return ended

    def unusable(self, credential_id: str) -> bool:
        """Whether the session's tokens must be refused: it has ended, has expired or does not exist."""
        row = self._state(credential_id)
        return row is None or row.ended_at is not None or row.expires_at <= self._clock()

    def expires_at(self, credential_id: str) -> datetime | None:
        """When the session ends if nobody refreshes it; None if there is none."""
        row = self._state(credential_id)
        return None if row is None else row.expires_at

    def revoked_since(self, moment: datetime) -> list[str]:
        """The sessions that were ended at that moment or later. Of one that expires no token lives on."""
        with self._database.read() as connection:
            ended = connection.scalars(sa.select(sessions.c.id).where(sessions.c.ended_at >= moment))
            return [f"{KIND}:{session_id}" for session_id in ended]

    def clean(self) -> None:
        """Deletes sessions that are long over, their tokens, and networks that nobody came from for long."""
        now = self._clock()
        over = now - _FORGOTTEN_AFTER
        old = known_addresses.c.signed_in_at < now - _NETWORK_FORGOTTEN_AFTER
        with self._database.write() as connection:
            connection.execute(sa.delete(sessions).where((sessions.c.ended_at < over) | (sessions.c.expires_at < over)))
            connection.execute(sa.delete(known_addresses).where(old))

    def _state(self, credential_id: str) -> Any:
        return self._database.row(_STATE, {"id": credential_id.removeprefix(f"{KIND}:")})

    def _family(self, connection: sa.Connection, token_hash: bytes) -> tuple[Any, Any]:
        """The rows of user and session, locked in the order in which everybody locks them."""
        query = sa.select(sessions.c.id, sessions.c.user_id).join(refresh_tokens)
        found = connection.execute(query.where(refresh_tokens.c.token_hash == token_hash)).one_or_none()
        if found is None:
            raise RefreshTokenInvalid
        user = connection.execute(sa.select(users).where(users.c.id == found.user_id).with_for_update()).one_or_none()
        session = connection.execute(
            sa.select(sessions).where(sessions.c.id == found.id).with_for_update()
        ).one_or_none()
        if user is None or session is None:
            raise RefreshTokenInvalid
        return user, session

    def _new_token(self, connection: sa.Connection, session_id: str) -> str:
        body = _MARK + key_format.random_text(_SECRET_CHARACTERS, secrets.choice)
        text = body + key_format.checksum(body)
        row = {"token_hash": self._pepper.hash(text), "session_id": session_id}
        connection.execute(sa.insert(refresh_tokens).values(row))
        return text

    def _hash(self, text: str) -> bytes:
        if not _TOKEN.fullmatch(text):
            raise RefreshTokenInvalid
        return self._pepper.hash(text)

    def _network_hash(self, network: str) -> bytes:
        return self._pepper.hash(f"network\0{network}")

    def _remember(self, connection: sa.Connection, user_id: str, network: str, now: datetime) -> None:
        k, own = known_addresses, known_addresses.c.user_id == user_id
        same = own & (k.c.address_hash == self._network_hash(network))
        if connection.execute(sa.update(k).where(same).values(signed_in_at=now)).rowcount == 0:
            row = {"user_id": user_id, "address_hash": self._network_hash(network), "signed_in_at": now}
            connection.execute(sa.insert(k).values(row))
            oldest = sa.select(k.c.address_hash).where(own).order_by(k.c.signed_in_at.desc()).offset(_MAX_NETWORKS)
            surplus = connection.scalars(oldest.limit(_MAX_NETWORKS)).all()
            connection.execute(sa.delete(k).where(own, k.c.address_hash.in_(surplus)))


def end_sessions(connection: sa.Connection, user_id: str, now: datetime, *, only: str = "", but: str = "") -> int:
    """Ends the user's sessions, only one, or all but one; how many. The user's row must be locked."""
    chosen = _live(user_id, now)
    if only:
        chosen &= sessions.c.id == only
    if but:
        chosen &= sessions.c.id != but
    return connection.execute(sa.update(sessions).where(chosen).values(ended_at=now)).rowcount


def _live(user_id: str, now: datetime) -> sa.ColumnElement[bool]:
    return (sessions.c.user_id == user_id) & sessions.c.ended_at.is_(None) & (sessions.c.expires_at > now)


def _session(row: Any) -> Session:
    return Session(row.id, row.user_id, row.address, row.created_at, row.refreshed_at, row.expires_at)
