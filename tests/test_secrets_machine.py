"""Versions, check-and-set and stages against a model: whatever the order of calls, the vault does what it says."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import services.secrets
from services.secrets.vault import Vault
from services.secrets.vault_records import Stage
from services.secrets.vault_search import Wanted, search
from services.shared.database import Database
from services.shared.errors import DomainError
from tests.keyrings import keyring

MIGRATIONS = Path(services.secrets.__file__).parent / "migrations"

names_ = st.sampled_from(["a", "a/b"])
versions_ = st.integers(1, 6)
# None: unconditionally; else so much beside the current version.
beside_ = st.sampled_from([None, 0, 0, -1, 1])
minutes_ = st.sampled_from([0, 0, 2])


@dataclass
class Version:
    value: int
    expires_at: datetime | None = None
    deleted: bool = False
    destroyed: bool = False


@dataclass
class Secret:
    versions: dict[int, Version] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=dict)
    deleted: bool = False


class Model(RuleBasedStateMachine):
    """What the vault is told, and in plain Python what should come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database.open(
            f"sqlite:///{self.folder.name}/s.db", service="secrets", migrations=MIGRATIONS, pool_size=2
        )
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.vault = Vault(self.database, keyring(self.database), lambda: self.now)
        self.vault.prepare()
        self.secrets: dict[str, Secret] = {}
        self.counter = 0

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    def refused(self, reason: str, call: Callable[[], object]) -> None:
        with pytest.raises(DomainError) as caught:
            call()
        assert caught.value.error_reason == reason

    def live(self, name: str) -> Secret | None:
        secret = self.secrets.get(name)
        return None if secret is None or secret.deleted else secret

    def missing(self, name: str) -> str:
        return "SECRET_DELETED" if name in self.secrets else "SECRET_NOT_FOUND"

    def expiry(self, minutes: int) -> datetime | None:
        return self.now + timedelta(minutes=minutes) if minutes else None

    @rule(name=names_, beside=beside_, allow_missing=st.booleans(), minutes=minutes_)
    def update(self, name: str, beside: int | None, allow_missing: bool, minutes: int) -> None:
        self.counter += 1
        secret = self.live(name)
        current = secret.stages["current"] if secret else 0
        expected = None if beside is None else max(0, current + beside)
        expires_at = self.expiry(minutes)

        def write() -> object:
            return self.vault.update(
                name, {"n": self.counter}, "me",
                expected_version=expected, allow_missing=allow_missing, expires_at=expires_at,
            )  # fmt: skip

        if secret is None and not allow_missing and expected != 0:
            self.refused(self.missing(name), write)
        elif expected is not None and expected != current:
            self.refused("VERSION_MISMATCH", write)
        else:
            write()
            self.written(name, Stage.CURRENT, expires_at)

    def written(self, name: str, stage: str, expires_at: datetime | None) -> None:
        secret = self.secrets.setdefault(name, Secret())
        if secret.deleted:
            secret.deleted, secret.stages = False, {}
            for version in secret.versions.values():
                version.deleted = True
        number = max(secret.versions, default=0) + 1
        secret.versions[number] = Version(self.counter, expires_at)
        self.become(secret, number, stage)

    @staticmethod
    def become(secret: Secret, number: int, stage: str) -> None:
        if stage == Stage.CURRENT and "current" in secret.stages:
            secret.stages["previous"] = secret.stages["current"]
        secret.stages[str(stage)] = number

    @rule(name=names_, minutes=minutes_)
    def stage(self, name: str, minutes: int) -> None:
        self.counter += 1
        secret, expires_at = self.live(name), self.expiry(minutes)

        def write() -> object:
            return self.vault.stage(name, {"n": self.counter}, "me", expires_at=expires_at)

        if secret is None:
            self.refused(self.missing(name), write)
        elif "pending" in secret.stages:
            self.refused("VERSION_PENDING", write)
        else:
            write()
            self.written(name, Stage.PENDING, expires_at)

    @rule(name=names_, version=versions_)
    def promote(self, name: str, version: int) -> None:
        secret = self.live(name)
        if secret is None:
            self.refused(self.missing(name), lambda: self.vault.promote(name, version))
        elif version == secret.stages["current"]:
            assert self.vault.promote(name, version).stage == "current"
        elif version != secret.stages.get("pending"):
            self.refused("VERSION_NOT_PENDING", lambda: self.vault.promote(name, version))
        else:
            self.vault.promote(name, version)
            del secret.stages["pending"]
            self.become(secret, version, Stage.CURRENT)

    @rule(name=names_, version=versions_)
    def discard(self, name: str, version: int) -> None:
        secret = self.live(name)
        if secret is None:
            self.refused(self.missing(name), lambda: self.vault.discard(name, version))
        elif version not in secret.versions:
            self.refused("SECRET_VERSION_NOT_FOUND", lambda: self.vault.discard(name, version))
        elif version != secret.stages.get("pending") and not secret.versions[version].destroyed:
            self.refused("VERSION_NOT_PENDING", lambda: self.vault.discard(name, version))
        else:
            self.vault.discard(name, version)
            self.destroyed(secret, [version])

    @rule(name=names_, chosen=st.lists(versions_, unique=True, max_size=2), back=st.booleans())
    def delete(self, name: str, chosen: list[int], back: bool) -> None:
        act = self.vault.undelete if back else self.vault.delete
        secret = self.secrets.get(name)
        if secret is None:
            self.refused("SECRET_NOT_FOUND", lambda: act(name, chosen))
        elif not back and secret.stages.get("pending") in chosen:
            self.refused("VERSION_PENDING", lambda: act(name, chosen))
        elif not secret.versions.keys() >= {*chosen}:
            self.refused("SECRET_VERSION_NOT_FOUND", lambda: act(name, chosen))
        elif back and any(secret.versions[number].destroyed for number in chosen):
            self.refused("SECRET_VERSION_DESTROYED", lambda: act(name, chosen))
        else:
            act(name, chosen)
            for number in chosen:
                secret.versions[number].deleted = not back
            if not chosen:
                secret.deleted = not back

    @rule(name=names_, chosen=st.lists(versions_, unique=True, min_size=1, max_size=2))
    def destroy(self, name: str, chosen: list[int]) -> None:
        secret = self.secrets.get(name)
        if secret is None:
            self.refused("SECRET_NOT_FOUND", lambda: self.vault.destroy(name, chosen))
        elif not secret.versions.keys() >= {*chosen}:
            self.refused("SECRET_VERSION_NOT_FOUND", lambda: self.vault.destroy(name, chosen))
        else:
            fresh = sum(not secret.versions[number].destroyed for number in chosen)
            assert self.vault.destroy(name, chosen) == fresh
            self.destroyed(secret, chosen)

    @staticmethod
    def destroyed(secret: Secret, chosen: list[int]) -> None:
        for number in chosen:
            secret.versions[number].destroyed = True
        if secret.stages.get("pending") in chosen:
            del secret.stages["pending"]

    @rule(name=names_)
    def destroy_all(self, name: str) -> None:
        secret = self.secrets.pop(name, None)
        if secret is None:
            self.refused("SECRET_NOT_FOUND", lambda: self.vault.destroy(name))
        else:
            assert self.vault.destroy(name) == sum(not version.destroyed for version in secret.versions.values())

    @rule()
    def time_passes(self) -> None:
        self.now += timedelta(minutes=1)

    @invariant()
    def every_version_is_served_or_refused_as_the_model_says(self) -> None:
        for name, secret in self.secrets.items():
            for number, version in secret.versions.items():
                reason = self.reason(secret, version)
                if reason:
                    self.refused(reason, lambda name=name, number=number: self.vault.get(name, number))
                else:
                    assert self.vault.get(name, number).data == {"n": version.value}
            for stage in Stage:
                number = secret.stages.get(stage, 0)
                with suppress(DomainError):
                    assert self.vault.get(name, stage=stage).about.version == number
            told = {version.version: version for version in self.vault.history(name)}
            assert {version.stage: n for n, version in told.items() if version.stage} == secret.stages
            assert told.keys() == secret.versions.keys()
            assert {n for n, version in told.items() if version.destroyed_at} == {
                n for n, version in secret.versions.items() if version.destroyed
            }

    def reason(self, secret: Secret, version: Version) -> str:
        if secret.deleted:
            return "SECRET_DELETED"
        if version.destroyed:
            return "SECRET_VERSION_DESTROYED"
        if version.deleted:
            return "SECRET_VERSION_DELETED"
        expired = version.expires_at is not None and version.expires_at <= self.now
        return "SECRET_VERSION_EXPIRED" if expired else ""

    @invariant()
    def the_listing_shows_what_is_there(self) -> None:
        found = search(self.database, Wanted(), visible=lambda _name: True).secrets
        current = {name: secret.stages["current"] for name, secret in self.secrets.items() if not secret.deleted}
        assert {secret.name: secret.current_version for secret in found} == current


@pytest.mark.slow
@pytest.mark.row("S4.1")
@pytest.mark.row("S4.3")
def test_versions_check_and_set_and_stages() -> None:
    quick = settings(
        max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(Model, settings=quick)
