"""Users: people, their roles, and who may change them.

Nobody acts on a user who may do more than they: whoever could reset an administrator's password would be one.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from email_validator import EmailNotValidError, validate_email

from services.auth import password_rules, roles
from services.auth.cover import covers
from services.auth.key_rules import GrantNotCovered
from services.auth.password_hashing import PasswordHashing
from services.auth.sessions import end_sessions
from services.auth.user_tables import users as u
from services.shared.database import Database
from services.shared.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PageTokenInvalid
from services.shared.identity import Grant, Principal
from services.shared.ids import new_id

KIND = "user"
_DEFAULT_PAGE = 100


class UserNotFound(NotFound):
    reason = "USER_NOT_FOUND"


class UserExists(AlreadyExists):
    reason = "USER_EXISTS"


class EmailInvalid(InvalidArgument):
    reason = "EMAIL_INVALID"


class LastAdministrator(FailedPrecondition):
    reason = "LAST_ADMINISTRATOR"


@dataclass(frozen=True, slots=True)
class User:
    """A person."""

    id: str
    email: str
    name: str
    role: str
    is_active: bool
    must_change_password: bool
    created_at: datetime
    created_by: str
    last_sign_in_at: datetime | None

    def principal(self, session_id: str = "") -> Principal:
        """Whoever is signed in as this user."""
        credential = f"session:{session_id}" if session_id else ""
        grants = roles.role(self.role).grants
        return Principal(f"{KIND}:{self.id}", self.email, credential, grants=grants, role=self.role)


@dataclass(frozen=True, slots=True)
class Changes:
    """What an update changes; None stays."""

    name: str | None = None
    role: str | None = None
    is_active: bool | None = None


class Users:
    """The users of the installation.

    Args:
        revoke_keys: revokes, in a transaction, the API keys of a principal that may do more than some grants, and says
            how many.
    """

    def __init__(
        self,
        database: Database,
        hashing: PasswordHashing,
        revoke_keys: Callable[[sa.Connection, str, Sequence[Grant]], int],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._hashing = hashing
        self._revoke_keys = revoke_keys
        self._clock = clock

    def create(self, caller: Principal, email: str, name: str, role: str, password: str = "") -> tuple[User, str]:
        """Makes a user. Returns it and the password that was made up, empty if one was given.

        Raises:
            InvalidArgument: EMAIL_INVALID, ROLE_UNKNOWN or PASSWORD_WEAK.
            GrantNotCovered: the role may do what the caller may not.
            UserExists: the e-mail address has a user.
        """
        shown = check_email(email)
        _check_rank(caller, role)
        made_up = "" if password else password_rules.make_up()
        if password:
            password_rules.check(password, shown)
        row = {
            "id": new_id(),
            "email": shown,
            "email_key": email_key(shown),
            "name": name,
            "role": role,
            "is_active": True,
            "password_hash": self._hashing.hash(password or made_up, known=True),
            "must_change_password": bool(made_up),
            "created_at": self._clock(),
            "created_by": caller.id,
        }
        try:
            with self._database.write() as connection:
                connection.execute(sa.insert(u).values(row))
        except sa.exc.IntegrityError:
            raise UserExists(f"There is a user {shown} already.", email=shown) from None
        return self.get(str(row["id"])), made_up

    def get(self, user_id: str) -> User:
        """The user of that id. Raises UserNotFound."""
        with self._database.read() as connection:
            return user_of(_present(connection.execute(sa.select(u).where(u.c.id == user_id)).one_or_none(), user_id))

    def find(self, name: str) -> User | None:
        """The user of that id or e-mail address."""
        by = u.c.email_key == email_key(name) if "@" in name else u.c.id == name
        with self._database.read() as connection:
            row = connection.execute(sa.select(u).where(by)).one_or_none()
        return None if row is None else user_of(row)

    def exists(self, email: str) -> bool:
        """Whether somebody has the e-mail address."""
        with self._database.read() as connection:
            return connection.scalar(sa.select(u.c.id).where(u.c.email_key == email_key(email))) is not None

    def page(self, page_size: int, page_token: str, *, active_only: bool) -> tuple[list[User], str]:
        """A page of users by e-mail address, and the next page's token, empty on the last."""
        size = page_size or _DEFAULT_PAGE
        query = sa.select(u).where(u.c.email_key > _after(page_token)).order_by(u.c.email_key).limit(size + 1)
        if active_only:
            query = query.where(u.c.is_active)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [user_of(row) for row in rows[:size]], _token(rows[size - 1].email_key) if len(rows) > size else ""

    def update(self, caller: Principal, user_id: str, changes: Changes) -> User:
        """Changes a user. A new role and a deactivation end the sessions and revoke the keys: a new role those that may
        do more than it, a deactivation all.

        Raises UserNotFound, RoleUnknown, GrantNotCovered or LastAdministrator.
        """
        with self._database.write() as connection:
            self._change(connection, caller, user_id, changes)
        return self.get(user_id)

    def _change(self, connection: sa.Connection, caller: Principal, user_id: str, changes: Changes) -> int:
        """Makes the changes; how many keys they ended."""
        if changes.role is not None:
            _check_rank(caller, changes.role)
        wanted = {"name": changes.name, "role": changes.role, "is_active": changes.is_active}
        values = {column: value for column, value in wanted.items() if value is not None}
        before = self._locked(connection, caller, user_id, values)
        if values:
            connection.execute(sa.update(u).where(u.c.id == user_id).values(values))
        stays = changes.role in (None, before.role)
        if stays and changes.is_active is not False:
            return 0
        end_sessions(connection, user_id, self._clock())
        # A role that is gone must not live on in keys.
        kept = () if changes.is_active is False else roles.role(changes.role or before.role).grants
        return self._revoke_keys(connection, f"{KIND}:{user_id}", kept)

    def delete(self, caller: Principal, user_id: str) -> int:
        """Deletes a user, ends the sessions and revokes the keys; how many there were.

        Raises UserNotFound, GrantNotCovered or LastAdministrator.
        """
        with self._database.write() as connection:
            revoked = self._change(connection, caller, user_id, Changes(is_active=False))
            connection.execute(sa.delete(u).where(u.c.id == user_id))
        return revoked

    def reset_password(self, caller: Principal, user_id: str) -> tuple[User, str]:
        """Gives the user a made-up password and ends the sessions. Raises UserNotFound or GrantNotCovered."""
        made_up = password_rules.make_up()
        _check_rank(caller, self.get(user_id).role)
        values = {"password_hash": self._hashing.hash(made_up, known=True), "must_change_password": True}
        with self._database.write() as connection:
            self._locked(connection, caller, user_id, {})
            connection.execute(sa.update(u).where(u.c.id == user_id).values(values))
            end_sessions(connection, user_id, self._clock())
        return self.get(user_id), made_up

    def sign_out(self, caller: Principal, user_id: str) -> int:
        """Ends the user's sessions; how many there were. Raises UserNotFound or GrantNotCovered."""
        with self._database.write() as connection:
            self._locked(connection, caller, user_id, {})
            return end_sessions(connection, user_id, self._clock())

    @staticmethod
    def _locked(connection: sa.Connection, caller: Principal, user_id: str, values: dict[str, Any]) -> User:
        """The user, its row locked, and with it those of all administrators who may sign in: of two who remove each
        other one comes second, and finds that nobody else is left."""
        administrators = (u.c.role == roles.ADMIN.name) & u.c.is_active
        query = sa.select(u).where((u.c.id == user_id) | administrators).order_by(u.c.id).with_for_update()
        rows = {row.id: row for row in connection.execute(query)}
        before = user_of(_present(rows.get(user_id), user_id))
        _check_rank(caller, before.role)
        if _administrates(before.role, before.is_active):
            stays = _administrates(values.get("role", before.role), values.get("is_active", before.is_active))
            others = (row for row in rows.values() if row.id != user_id and _administrates(row.role, row.is_active))
            if not stays and not any(others):
                raise LastAdministrator("This is the last administrator who may sign in: make another one first.")
        return before


def check_email(email: str) -> str:
    """The address in its usual form. Raises EmailInvalid. Whether mail arrives there does not matter: none is sent."""
    try:
        return str(validate_email(email.strip(), check_deliverability=False, globally_deliverable=False).normalized)
    except EmailNotValidError:
        raise EmailInvalid("This is no e-mail address. Write it like ada@example.com.") from None


def email_key(email: str) -> str:
    """What two spellings of an e-mail address have in common."""
    # PostgreSQL has no text with NUL in it, and no address has one.
    return password_rules.normalize(email.strip()).casefold().replace("\0", "\ufffd")


def user_of(row: Any) -> User:
    """The row as a user."""
    return User(
        id=row.id,
        email=row.email,
        name=row.name,
        role=row.role,
        is_active=row.is_active,
        must_change_password=row.must_change_password,
        created_at=row.created_at,
        created_by=row.created_by,
        last_sign_in_at=row.last_sign_in_at,
    )


def _check_rank(caller: Principal, role: str) -> None:
    """Raises GrantNotCovered if users of the role may do what the caller may not, and RoleUnknown."""
    if not covers(caller.grants, roles.role(role).grants):
        raise GrantNotCovered(f"Users of the role {role} may do more than you: only who may as much acts on them.")


def _administrates(role: str, is_active: bool) -> bool:
    return role == roles.ADMIN.name and is_active


def _present(row: Any, user_id: str) -> Any:
    if row is None:
        raise UserNotFound(f"There is no user {user_id}.", id=user_id)
    return row


def _token(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _after(page_token: str) -> str:
    try:
        padded = page_token + "=" * (-len(page_token) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode().replace("\0", "\ufffd")
    except ValueError:
        raise PageTokenInvalid("ListUsers") from None
