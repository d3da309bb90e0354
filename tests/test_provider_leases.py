"""Leases: one writer at a time to a secret of a provider, whatever becomes of the one before."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from services.secrets.bootstrap import _MIGRATIONS
from services.secrets.providers import leases
from services.secrets.providers.leases import HELD, Leases, SecretBusy
from services.secrets.providers.outbox import Outbox
from services.shared.database import Database

pytestmark = pytest.mark.row("S4.2")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('leases') / 'strongroom.db'}"
    else:
        url = request.getfixturevalue("postgresql_url")
    opened = Database.open(url, service="secrets", migrations=_MIGRATIONS)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_one_holds_it_and_may_hold_it_longer(database: Database, clock: Clock) -> None:
    kept = Leases(database, clock)
    assert kept.take("aws", "one", "me")
    assert not kept.take("aws", "one", "you")
    assert kept.take("gcp", "one", "you")
    clock.now += HELD - timedelta(seconds=1)
    assert kept.take("aws", "one", "me")
    clock.now += HELD - timedelta(seconds=1)
    assert not kept.take("aws", "one", "you")
    kept.release("aws", "one", "you")
    assert not kept.take("aws", "one", "you")
    kept.release("aws", "one", "me")
    assert kept.take("aws", "one", "you")


def test_lease_of_one_who_died_ends(database: Database, clock: Clock) -> None:
    kept = Leases(database, clock)
    assert kept.take("aws", "two", "dead")
    clock.now += HELD
    assert kept.take("aws", "two", "you")
    assert not kept.take("aws", "two", "dead")


def test_who_waits_too_long_is_told(database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_PATIENCE", 0.1)
    kept = Leases(database, clock)
    with kept.holding("aws", "three"), pytest.raises(SecretBusy), kept.holding("aws", "three"):
        pass
    with kept.holding("aws", "three"):
        pass


def test_change_that_comes_while_one_is_carried_over_stays_noted(database: Database, clock: Clock) -> None:
    outbox = Outbox(database, ["aws"], clock)
    with database.write() as connection:
        outbox.changed(connection, "one")
    [first] = outbox.due("aws", 10)
    clock.now += timedelta(seconds=5)
    with database.write() as connection:
        outbox.changed(connection, "one")
    outbox.done(first)
    [second] = outbox.due("aws", 10)
    assert second.generation != first.generation
    assert outbox.lags()["aws"].since == clock.now - timedelta(seconds=5)
    outbox.done(second)
    assert not outbox.lags()


def test_change_that_fails_waits_longer_each_time_and_hurries_when_told(database: Database, clock: Clock) -> None:
    outbox = Outbox(database, ["aws"], clock)
    outbox.note("aws", ["one"])
    waits = []
    for _ in range(10):
        [change] = outbox.due("aws", 10)
        outbox.failed(change, "down")
        began = clock.now
        while not outbox.due("aws", 1):
            clock.now += timedelta(seconds=1)
        waits.append((clock.now - began).total_seconds())
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert outbox.lags()["aws"].error == "down"
    [change] = outbox.due("aws", 10)
    outbox.failed(change, "down")
    assert not outbox.due("aws", 10)
    outbox.hurry("aws")
    [change] = outbox.due("aws", 10)
    outbox.done(change)


def test_change_of_a_transaction_that_fails_is_not_noted(database: Database, clock: Clock) -> None:
    outbox = Outbox(database, ["aws"], clock)
    with suppress(RuntimeError), database.write() as connection:
        outbox.changed(connection, "never")
        raise RuntimeError
    assert not outbox.due("aws", 10)
