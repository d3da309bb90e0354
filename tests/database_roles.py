"""Roles on a real PostgreSQL, and a client that logs in with a secret all the time."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from tests.postgresql import Server


@dataclass(frozen=True)
class Roles:
    """Two roles of an application, and an administrator who may change their passwords and nothing else."""

    server: Server
    names: tuple[str, str]
    admin: dict[str, str]
    value: dict[str, str]

    @classmethod
    def make(cls, server: Server) -> "Roles":
        mark = secrets.token_hex(4)
        first, second, admin = f"app_{mark}_a", f"app_{mark}_b", f"admin_{mark}"
        password, admin_password = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        with psycopg.connect(server.url, autocommit=True) as connection:
            for name, created, given in (
                (admin, "CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}", admin_password),
                (first, "CREATE ROLE {} LOGIN PASSWORD {}", password),
                (second, "CREATE ROLE {} LOGIN PASSWORD {}", secrets.token_urlsafe(16)),
            ):
                connection.execute(sql.SQL(created).format(sql.Identifier(name), sql.Literal(given)))
            for name in (first, second):
                granted = sql.SQL("GRANT {} TO {} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
                connection.execute(granted.format(sql.Identifier(name), sql.Identifier(admin)))
        admin_value = {"username": admin, "password": admin_password}
        return cls(server, (first, second), admin_value, {"username": first, "password": password})

    def options(self, **fields: Any) -> dict[str, Any]:
        parts = urlsplit(self.server.url)
        named = {"host": parts.hostname, "port": parts.port, "roles": list(self.names), "tls": "disable"}
        return named | {"admin_secret": "pg/admin"} | fields

    def logs_in(self, value: dict[str, Any]) -> bool:
        parts = urlsplit(self.server.url)
        try:
            psycopg.connect(
                host=parts.hostname,
                port=parts.port,
                dbname="postgres",
                user=value["username"],
                password=value["password"],
                connect_timeout=10,
            ).close()
        except psycopg.OperationalError:
            return False
        return True


@dataclass
class Application:
    """Logs in over and over with what the secret is at the time, as an application that is never down does."""

    roles: Roles
    read: Callable[[], tuple[int, dict[str, Any]]]
    refused: list[int] = field(default_factory=list)
    logins: int = 0

    def __enter__(self) -> "Application":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            version, value = self.read()
            if self.roles.logs_in(value):
                self.logins += 1
            # If two rotations went by since it was read, it was read too long ago.
            elif self.read()[0] == version:
                self.refused.append(version)
            self._stop.wait(0.03)
