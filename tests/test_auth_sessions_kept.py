"""What is kept of users' sessions and failures, and that it does not grow without end."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher

from services.auth import first_administrator, throttle
from services.auth.cleaner import Cleaner
from services.auth.envelope import Envelope
from services.auth.first_administrator import FirstAdministrator
from services.auth.password_hashing import PasswordHashing
from services.auth.pepper import Pepper
from services.auth.sessions import Lifetimes, RefreshTokenInvalid, Sessions
from services.auth.throttle import Scope, SignInThrottled, Throttle
from services.auth.user_tables import known_addresses, refresh_tokens, sessions, sign_in_failures, users
from services.auth.users import Users
from services.shared.database import Database
from tests.auth_installation import TestClock

MIGRATIONS = Path(first_administrator.__file__).parent / "migrations"


@dataclass
class Storage:
    """A database with one user, and what keeps sessions and failures in it."""

    database: Database
    clock: TestClock
    sessions: Sessions
    throttle: Throttle
    user: Any

    def sign_in(self, network: str = "192.0.2.1") -> str:
        with self.database.write() as connection:
            return self.sessions.open(connection, self.user, network, network).token

    def rows(self, table: sa.Table) -> int:
        with self.database.read() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Storage]:
    url = f"sqlite:///{tmp_path}/kept.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_server").create_database()
    database, clock = Database.open(url, service="auth", migrations=MIGRATIONS), TestClock()
    pepper = Pepper(database, Envelope(lambda plain, _: plain, lambda cipher, _: cipher), clock)
    pepper.load()
    hashing = PasswordHashing(pepper, PasswordHasher(1, 8, 1), threads=1, waiting=2)
    wanted = FirstAdministrator("ada@example.com", "lantern orbit velvet")
    for _ in range(2):
        first_administrator.ensure(Users(database, hashing, lambda _: 0, clock), wanted)
    with database.read() as connection:
        user = connection.execute(sa.select(users)).one()
    lifetimes = Lifetimes(idle=timedelta(days=7), total=timedelta(days=30))
    kept = Sessions(database, pepper, lifetimes, clock)
    yield Storage(database, clock, kept, Throttle(database, pepper, clock), user)
    hashing.close()
    database.close()


def test_a_user_has_a_hundred_sessions_and_the_oldest_make_room(storage: Storage) -> None:
    tokens = [storage.sign_in() for _ in range(103)]
    assert len(storage.sessions.of_user(storage.user.id)) == 100
    for token in tokens[:3]:
        with pytest.raises(RefreshTokenInvalid):
            storage.sessions.refresh(token)
    assert storage.sessions.refresh(tokens[3]).token


def test_a_user_has_fifty_networks_and_the_longest_unused_make_room(storage: Storage) -> None:
    for number in range(55):
        storage.sign_in(f"192.0.2.{number}")
        storage.sign_in("198.51.100.1")
        storage.clock.ahead += timedelta(seconds=1)
    assert storage.rows(known_addresses) == 50
    known = [storage.sessions.known(storage.user.id, f"192.0.2.{number}") for number in range(55)]
    assert known == [False] * 6 + [True] * 49
    assert storage.sessions.known(storage.user.id, "198.51.100.1")
    assert not storage.sessions.known("", "198.51.100.1")


def test_what_is_over_is_deleted_when_nobody_asks_for_it_any_more(storage: Storage) -> None:
    token = storage.sign_in()
    for _ in range(3):
        token = storage.sessions.refresh(token).token
    storage.sessions.end(storage.user.id)
    storage.clock.ahead += timedelta(hours=23)
    storage.sessions.clean()
    assert (storage.rows(sessions), storage.rows(refresh_tokens)) == (1, 4)
    storage.clock.ahead += timedelta(hours=2)
    storage.sessions.clean()
    assert (storage.rows(sessions), storage.rows(refresh_tokens), storage.rows(known_addresses)) == (0, 0, 1)
    storage.clock.ahead += timedelta(days=90)
    storage.sessions.clean()
    assert storage.rows(known_addresses) == 0


def test_failures_are_deleted_when_they_are_forgotten(storage: Storage) -> None:
    for number in range(3):
        storage.throttle.admit(storage.throttle.sign_in_scopes(f"{number}@example.com", "192.0.2.1", known=False))
    assert storage.rows(sign_in_failures) == 7
    storage.clock.ahead += timedelta(hours=2)
    storage.throttle.clean()
    assert storage.rows(sign_in_failures) == 6
    storage.clock.ahead += timedelta(hours=23)
    storage.throttle.clean()
    assert storage.rows(sign_in_failures) == 0


def test_a_flood_of_failures_keeps_the_newest(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_MAX_ROWS", 10)
    for number in range(25):
        storage.throttle.admit([Scope(bytes([number] * 32), throttle.PAIR)])
        storage.clock.ahead += timedelta(seconds=1)
    storage.throttle.clean()
    with storage.database.read() as connection:
        kept = connection.scalars(sa.select(sign_in_failures.c.scope).order_by(sign_in_failures.c.scope)).all()
    assert [scope[0] for scope in kept] == list(range(15, 25))


def test_an_attempt_that_is_taken_back_leaves_the_pauses_of_others(storage: Storage) -> None:
    limit = replace(throttle.PAIR, free=1)
    scope = Scope(bytes(32), limit)
    storage.throttle.withdraw(storage.throttle.admit([scope]))
    mine = storage.throttle.admit([scope])
    storage.clock.ahead += timedelta(seconds=2)
    storage.throttle.admit([scope])
    storage.throttle.withdraw(mine)
    with pytest.raises(SignInThrottled) as caught:
        storage.throttle.admit([scope])
    assert caught.value.retry_after == 2


def test_a_cleaner_goes_on_when_the_database_fails(storage: Storage) -> None:
    done = threading.Event()
    runs: list[str] = []

    def fail() -> None:
        runs.append("failed")
        storage.rows(sa.table("missing"))

    def clean() -> None:
        storage.sessions.clean()
        runs.append("cleaned")
        if len(runs) >= 4:
            done.set()

    cleaner = Cleaner([fail, clean], seconds=0.01)
    cleaner.start()
    cleaner.start()
    assert done.wait(10)
    cleaner.close()
    assert runs[:4] == ["failed", "cleaned"] * 2
