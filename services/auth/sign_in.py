"""Signs users in, and changes their passwords."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog

from services.auth import password_rules
from services.auth.issuer import TokenIssuer
from services.auth.networks import network
from services.auth.password_hashing import PasswordHashing, SignInBusy
from services.auth.sessions import KIND as SESSION
from services.auth.sessions import Refreshed, Sessions, end_sessions
from services.auth.throttle import Scope, Throttle
from services.auth.user_tables import users as u
from services.auth.users import KIND as USER
from services.auth.users import email_key, user_of
from services.shared.database import Database
from services.shared.errors import FailedPrecondition, PermissionDenied, Unauthenticated
from services.shared.identity import Principal
from services.shared.tokens import ACCESS_SECONDS

_log = structlog.get_logger()


class SignInFailed(Unauthenticated):
    reason = "SIGN_IN_FAILED"


class PasswordExpired(FailedPrecondition):
    reason = "PASSWORD_EXPIRED"


class UserRequired(PermissionDenied):
    reason = "USER_REQUIRED"


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a user gets who is signed in; both lives are in seconds."""

    principal: Principal
    expires_in: int
    refresh_expires_in: int
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


class SignIn:
    """Judges passwords."""

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        hashing: PasswordHashing,
        throttle: Throttle,
        issuer: TokenIssuer,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._hashing = hashing
        self._throttle = throttle
        self._issuer = issuer
        self._clock = clock

    def sign_in(self, email: str, password: str, new_password: str, address: str) -> Tokens:
        """Starts a session. Whether the e-mail address or the password is wrong shows neither in the answer nor in the
        work.

        Args:
            new_password: replaces the password and ends the user's other sessions; empty to keep it.
            address: where the request comes from.

        Raises:
            PasswordWeak: the new password must not be one.
            SignInThrottled, SignInBusy: not now.
            SignInFailed: wrong e-mail address or password, or a user who may not sign in.
            PasswordExpired: all is right, but the password must be changed.
        """
        if new_password:
            _check_change(password, new_password, email)
        key, origin = email_key(email), network(address)
        user = self._row(u.c.email_key == key)
        # Asked for nobody too, so that the time does not tell.
        known = self._sessions.known(user.id if user is not None else "", origin)
        scopes = self._throttle.sign_in_scopes(key, address, known=known)
        stored = user.password_hash if user is not None else None
        # The same work for a user who may not sign in.
        if not self._matches(scopes, stored, password, known=known) or user is None or not user.is_active:
            _log.warning("auth.sign_in_failed", address=address, principal=f"{USER}:{user.id}" if user else "")
            raise _failed()
        if user.must_change_password and not new_password:
            raise PasswordExpired("The password must be changed: sign in once more with new_password.")
        changes = self._changes(user, password, new_password)
        with self._database.write() as connection:
            self._change(connection, user, changes)
            if new_password:
                end_sessions(connection, user.id, self._clock())
            opened = self._sessions.open(connection, user, address, origin)
        return self._tokens(opened)

    def refresh(self, refresh_token: str) -> Tokens:
        """The next pair of tokens. Raises RefreshTokenInvalid or RefreshTokenReused."""
        return self._tokens(self._sessions.refresh(refresh_token))

    def change_password(self, caller: Principal, password: str, new_password: str) -> None:
        """Changes the caller's password and ends its other sessions.

        Raises UserRequired, PasswordWeak, SignInThrottled, SignInBusy or SignInFailed.
        """
        kind, _, session_id = caller.credential_id.partition(":")
        if kind != SESSION:
            raise UserRequired("Only users have a password, and they sign in to change it: an API key can't.")
        _check_change(password, new_password, caller.name)
        user = self._row(u.c.id == caller.id.removeprefix(f"{USER}:"))
        scopes = self._throttle.session_scopes(session_id)
        if user is None or not self._matches(scopes, user.password_hash, password, known=True):
            raise SignInFailed("The current password is wrong.")
        changes = self._changes(user, password, new_password)
        with self._database.write() as connection:
            self._change(connection, user, changes)
            end_sessions(connection, user.id, self._clock(), but=session_id)

    def _matches(self, scopes: list[Scope], stored: str | None, password: str, *, known: bool) -> bool:
        attempt = self._throttle.admit(scopes)
        try:
            matches = self._hashing.verify(stored, password, known=known)
        except SignInBusy:
            self._throttle.withdraw(attempt)
            raise
        if matches:
            self._throttle.succeeded(attempt)
        return matches

    def _changes(self, user: Any, password: str, new_password: str) -> dict[str, Any]:
        """The columns that change: a new password, or the same hashed with today's parameters."""
        if new_password:
            return {"password_hash": self._hashing.hash(new_password, known=True), "must_change_password": False}
        if self._hashing.outdated(user.password_hash):
            return {"password_hash": self._hashing.hash(password, known=True)}
        return {}

    def _change(self, connection: sa.Connection, user: Any, changes: dict[str, Any]) -> None:
        """Writes them, if the password that was judged is still the user's. Locks the row."""
        now = connection.execute(sa.select(u).where(u.c.id == user.id).with_for_update()).one_or_none()
        if now is None or not now.is_active or now.password_hash != user.password_hash or now.role != user.role:
            raise _failed()
        changes = changes | {"last_sign_in_at": self._clock()}
        connection.execute(sa.update(u).where(u.c.id == user.id).values(changes))

    def _row(self, condition: sa.ColumnElement[bool]) -> Any:
        with self._database.read() as connection:
            return connection.execute(sa.select(u).where(condition)).one_or_none()

    def _tokens(self, refreshed: Refreshed) -> Tokens:
        session = refreshed.session
        left = int((session.expires_at - session.refreshed_at).total_seconds())
        seconds = max(1, min(ACCESS_SECONDS, left))
        principal = user_of(refreshed.user).principal(session.id)
        access = self._issuer.access_token(principal, seconds)
        return Tokens(principal, seconds, left, access, refreshed.token)


def _failed() -> SignInFailed:
    return SignInFailed("E-mail address or password is wrong.")


def _check_change(password: str, new_password: str, email: str) -> None:
    password_rules.check(new_password, email)
    if password_rules.normalize(new_password) == password_rules.normalize(password):
        raise password_rules.PasswordWeak("The new password is the old one. Take another one.")
