"""What has expired is served nowhere: replicas give it up as the primary does, and that is no drift."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.secrets.bootstrap import _MIGRATIONS
from services.secrets.providers.embedded import EmbeddedProvider
from services.secrets.providers.leases import Leases
from services.secrets.providers.outbox import Outbox
from services.secrets.providers.replica import Replica
from services.secrets.providers.states import States
from services.secrets.providers.watch import Watch
from services.secrets.vault import Vault
from services.shared.database import Database
from tests.keyrings import keyring

pytestmark = pytest.mark.row("S4.2")


class Setting:
    """A vault, and another one as its replica."""

    def __init__(self, here: Database, there: Database) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.outbox = Outbox(here, ["other"], self.clock)
        self.states = States(here, self.clock)
        self.vault = Vault(here, keyring(here, self.clock), self.clock, changed=self.outbox.changed)
        other = Vault(there, keyring(there, self.clock), self.clock)
        for vault in (self.vault, other):
            vault.prepare()
        self.there = EmbeddedProvider(other, there, self.clock)
        primary = EmbeddedProvider(self.vault, here, self.clock)
        leases = Leases(here, self.clock)
        self.replica = Replica("other", self.there, primary, self.outbox, self.states, leases)

    def clock(self) -> datetime:
        return self.now

    def watch(self) -> Watch:
        """As a process that starts has it."""
        return Watch("other", self.there, self.replica, self.states, self.clock, 1.0)

    def create(self, name: str, **lasts: float) -> None:
        self.vault.create(name, {"n": 1}, "key:owner", expires_at=self.now + timedelta(**lasts) if lasts else None)


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("here", "there")]
    here, there = (Database.open(url, service="secrets", migrations=_MIGRATIONS) for url in urls)
    yield Setting(here, there)
    here.close()
    there.close()


def test_a_replica_loses_what_expires(setting: Setting) -> None:
    setting.create("kept")
    setting.create("brief", hours=1)
    watch = setting.watch()
    for later, names in ((0, ["brief", "kept"]), (59, ["brief", "kept"]), (2, ["kept"])):
        setting.now += timedelta(minutes=later)
        watch.tick()
        assert sorted(setting.there.list()) == names
    # It is given a new value, and is there again.
    setting.vault.update("brief", {"n": 2}, "key:owner")
    watch.tick()
    assert setting.there.get("brief").data == {"n": 2}


def test_what_expires_while_nothing_runs_is_lost_at_the_next_start_and_is_no_drift(setting: Setting) -> None:
    setting.create("kept")
    setting.create("brief", hours=1)
    setting.watch().tick()
    setting.now += timedelta(days=2)
    setting.watch().tick()
    assert list(setting.there.list()) == ["kept"]
    setting.now += timedelta(days=2)
    setting.watch().tick()
    assert setting.states.drifted() == {}
