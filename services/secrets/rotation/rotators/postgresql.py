"""`postgresql`: the password of a role.

With **two roles** the value alternates between them: the one that is not in use gets the new password, so there is no
moment at which the current value does not open the database (AWS calls it the alternating users strategy). Both must
be able to do the work, as members of the role that owns it. With **one role** its password changes in place, and from
then until the value is promoted, a moment later, only the pending one logs in; use it where clients try again.

The server is never told a password: it gets the SCRAM-SHA-256 verifier (RFC 5802) that it would make of it itself, so
its log, `pg_stat_activity` and extensions see none. Passwords are checked by SCRAM alone, so that a server that is not
the one it should be is not told one either.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import psycopg
from psycopg import sql
from pydantic import Field, StringConstraints

from services.secrets.rotation.options import FieldName, HostName, OptionsInvalid, SecretName
from services.secrets.rotation.rotator import (
    Data,
    Rotation,
    Rotator,
    SecretUnfit,
    Surroundings,
    TargetRefuses,
    TargetUnavailable,
    text_field,
)
from services.secrets.rotation.targets import LOOPBACK
from services.secrets.rotation.values import ValuePolicy

# Seconds to connect, and milliseconds of a statement.
_CONNECT = 5
_STATEMENT = 5000

# What a PostgreSQL identifier takes, in bytes; letters that need no thought in a log or in a connection string.
RoleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_$.@-]{0,62}$")]


class PostgresqlOptions(ValuePolicy):
    """Where the roles are, and as whom to change them."""

    host: HostName
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    database: RoleName = "postgres"
    roles: Annotated[list[RoleName], Field(min_length=1, max_length=2)]
    # The secret with the user and password of who may change them; without, a role changes its own.
    admin_secret: SecretName | None = None
    # Whether the server has to show a certificate for its name; `disable` on this machine alone.
    tls: Literal["verify-full", "disable"] = "verify-full"
    username_field: FieldName = "username"
    password_field: FieldName = "password"  # noqa: S105 - a name


class PostgresqlRole(Rotator):
    """Passwords of PostgreSQL roles."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._randomness = surroundings.randomness
        self._targets = surroundings.targets

    def check(self, options: Data) -> frozenset[str]:
        chosen = PostgresqlOptions.of(options)
        if len(set(chosen.roles)) < len(chosen.roles):
            raise OptionsInvalid("Option roles: two different roles, or one.", option="roles")
        if chosen.tls == "disable" and chosen.host not in LOOPBACK:
            raise OptionsInvalid("Option tls: only a server on this machine is reached without TLS.", option="tls")
        self._targets.check(chosen.host, chosen.port)
        return frozenset({chosen.admin_secret} if chosen.admin_secret else ())

    def propose(self, rotation: Rotation) -> Data:
        options = PostgresqlOptions.of(rotation.options)
        in_use = text_field(rotation.current, options.username_field, rotation.secret)
        if in_use not in options.roles:
            raise SecretUnfit(
                f"The {options.username_field} of secret {rotation.secret!r} is none of the roles that rotate: "
                f"{', '.join(options.roles)}.",
                secret=rotation.secret,
            )
        # Of two the other one.
        role = next((name for name in options.roles if name != in_use), in_use)
        password = options.value(self._randomness)
        return {**rotation.current, options.username_field: role, options.password_field: password}

    def apply(self, rotation: Rotation, pending: Data) -> None:
        options = PostgresqlOptions.of(rotation.options)
        self._set(rotation, options, *_login(options, pending, rotation.secret), pending)

    def test(self, rotation: Rotation, pending: Data) -> None:
        options = PostgresqlOptions.of(rotation.options)
        with self._connected(options, *_login(options, pending, rotation.secret)) as connection:
            connection.execute("SELECT 1")

    def rollback(self, rotation: Rotation, pending: Data | None) -> None:
        if pending is None:
            return
        options = PostgresqlOptions.of(rotation.options)
        in_use, password = _login(options, rotation.current, rotation.secret)
        for role in options.roles:
            if role != in_use:
                self._set(rotation, options, role, None, pending)
            elif len(options.roles) == 1:
                self._set(rotation, options, role, password, pending)

    def retire(self, rotation: Rotation, previous: Data) -> None:
        options = PostgresqlOptions.of(rotation.options)
        role = previous.get(options.username_field)
        in_use, _ = _login(options, rotation.current, rotation.secret)
        # Of one role the password before went when the new one came.
        if role in options.roles and role != in_use:
            self._set(rotation, options, str(role), None, None)

    def _set(
        self, rotation: Rotation, options: PostgresqlOptions, role: str, password: str | None, pending: Data | None
    ) -> None:
        """Sets a role's password; None: no password opens it."""

        def alter(connection: "psycopg.Connection[Any]") -> None:
            verifier = None if password is None else _verifier(connection, role, password)
            command = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier))
            connection.execute(command)

        self._as_administrator(rotation, options, pending, alter)

    def _as_administrator(
        self,
        rotation: Rotation,
        options: PostgresqlOptions,
        pending: Data | None,
        act: "Callable[[psycopg.Connection[Any]], None]",
    ) -> None:
        if options.admin_secret is not None:
            value = rotation.read(options.admin_secret)
            login = tuple(text_field(value, name, options.admin_secret) for name in ("username", "password"))
            with self._connected(options, *login) as connection:
                return act(connection)
        # A role that changes its own password may have done it already, before it was cut off.
        logins = [_login(options, data, rotation.secret) for data in (rotation.current, pending) if data]
        for login in logins:
            try:
                with self._connected(options, *login) as connection:
                    return act(connection)
            except TargetRefuses:
                if login == logins[-1]:
                    raise
        return None

    @contextmanager
    def _connected(self, options: PostgresqlOptions, user: str, password: str) -> "Iterator[psycopg.Connection[Any]]":
        self._targets.check(options.host, options.port)
        certificates = "system" if options.tls == "verify-full" else None
        place = f"{options.host}:{options.port}"
        try:
            with psycopg.connect(
                host=options.host,
                port=options.port,
                dbname=options.database,
                user=user,
                password=password,
                autocommit=True,
                connect_timeout=_CONNECT,
                options=f"-cstatement_timeout={_STATEMENT} -clock_timeout={_STATEMENT}",
                application_name="strongroom rotation",
                require_auth="scram-sha-256",
                # No file of passwords that may lie about.
                passfile="/dev/null",
                sslmode=options.tls,
                sslrootcert=certificates,
            ) as connection:
                yield connection
        # Not the text of the error: it quotes the statement.
        except psycopg.OperationalError as error:
            if _denied(error):
                raise TargetRefuses(f"PostgreSQL at {place} does not let {user} in.", target=place) from None
            raise TargetUnavailable(f"PostgreSQL at {place} does not answer. Is it there?", target=place) from None
        except psycopg.Error as error:
            named = type(error).__name__
            raise TargetRefuses(f"PostgreSQL at {place} refuses {user} the change ({named}).", target=place) from None


def _denied(error: psycopg.OperationalError) -> bool:
    """Whether the server let the user not in, other than for now: libpq has no SQLSTATE for what fails on the way."""
    return (error.sqlstate or "").startswith("28") or "authentication" in str(error)


def _login(options: PostgresqlOptions, data: Data, secret: str) -> tuple[str, str]:
    return text_field(data, options.username_field, secret), text_field(data, options.password_field, secret)


def _verifier(connection: "psycopg.Connection[Any]", role: str, password: str) -> str:
    """By libpq, as `\\password` of psql makes it: with a random salt, 4096 rounds or what the server wants."""
    return connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
