"""Managers that are deleted while something else is done to their keys, or never made to the end."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import count
from pathlib import Path

import grpc
import pytest
from grpc_status import rpc_status

from services.models import bootstrap
from services.models.access_codes import AccessCode
from services.models.guesses import Guesses
from services.models.key_client import KekDerivation, KekStep, KeyClient, WrappedKey
from services.models.manager_keys import ManagerKeys, Password
from services.models.manager_removal import ManagerRemoval
from services.models.managers import Manager, ManagerNotFound, Managers, domain_context
from services.models.reencryptions import Reencryptions
from services.models.removal import Remover
from services.models.stores.local import LocalStore
from services.models.uploads import Uploads
from services.models.version_keys import VersionKeys
from services.shared.channels import service_channel
from services.shared.database import Database
from services.shared.tokens import ServiceIdentity
from strongroom.models.v1 import managers_pb2, managers_pb2_grpc, rotation_pb2, rotation_pb2_grpc
from tests.models_installation import Clock, Installation, installation
from tests.mortal import Mortal, mortal

_MIGRATIONS = Path(bootstrap.__file__).parent / "migrations"
_OURS = "SELECT id FROM keks WHERE owner = 'models' AND id LIKE 'managers/%'"


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("races")) as made:
        yield made


@pytest.fixture(scope="module")
def on_postgresql(tmp_path_factory: pytest.TempPathFactory, postgresql_url: str) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("races"), postgresql_url) as made:
        yield made


@pytest.fixture(params=["on_sqlite", "on_postgresql"])
def running(request: pytest.FixtureRequest) -> Installation:
    made: Installation = request.getfixturevalue(request.param)
    return made


def keks(folder: Path) -> set[str]:
    """Ids of the key-encryption keys that managers have."""
    with closing(sqlite3.connect(folder / "db" / "strongroom-secrets.db", timeout=20)) as connection:
        return {kek_id for [kek_id] in connection.execute(_OURS)}


class KeysWithADelay(KeyClient):
    """The real client, over a line on which something else happens first at one of its calls."""

    def __init__(self, channel: grpc.Channel, at: int, meanwhile: Callable[[], None]) -> None:
        super().__init__(channel)
        self._meanwhile, self._at, self._calls = meanwhile, at, 0

    def _passed(self) -> None:
        self._calls += 1
        if self._calls == self._at:
            self._meanwhile()

    def rotate(self, kek_id: str, password: str = "", derivation: KekDerivation | None = None) -> KekStep:
        self._passed()
        done = super().rotate(kek_id, password, derivation)
        self._passed()
        return done

    def generate(self, kek_id: str, context: str) -> WrappedKey:
        self._passed()
        made = super().generate(kek_id, context)
        self._passed()
        return made

    def wrap(self, kek_id: str, key: bytes, context: str) -> str:
        self._passed()
        made = super().wrap(kek_id, key, context)
        self._passed()
        return made

    def rewrap(self, kek_id, contexts) -> KekStep:  # type: ignore[no-untyped-def]
        self._passed()
        done = super().rewrap(kek_id, contexts)
        self._passed()
        return done


class Domain:
    """Managers of an installation without its service, over keys that make way at their `at`th turn."""

    def __init__(self, running: Installation) -> None:
        url = running.database_url or f"sqlite:///{running.folder}/db/strongroom.db"
        self.database = Database.open(url, service="models", migrations=_MIGRATIONS, pool_size=4)
        self.channel = service_channel(
            running.secrets_address, "secrets", ServiceIdentity.load("models", running.folder / "keys")
        )
        self.keys, self.clock = KeyClient(self.channel), Clock()
        self.managers = Managers(self.database, self.keys, self.clock)
        remover = Remover(self.database, LocalStore(running.folder / "other"), self.keys, self.clock)
        self.delete = ManagerRemoval(self.database, remover.remove, self.clock).delete

    def rotation(self, at: int, meanwhile: Callable[[], None]) -> ManagerKeys:
        keys = KeysWithADelay(self.channel, at, meanwhile)
        return ManagerKeys(self.database, keys, self.managers, self.clock)

    def close(self) -> None:
        self.channel.close()
        self.database.close()


@pytest.fixture
def domain(running: Installation) -> Iterator[Domain]:
    made = Domain(running)
    yield made
    made.close()


@pytest.mark.row("S0.9")
@pytest.mark.parametrize("password", [None, Password("a password")])
def test_a_manager_deleted_at_any_step_of_its_rotation_stays_deleted(
    running: Installation, domain: Domain, password: Password | None
) -> None:
    """Whatever the rotation was about to ask for: it makes no key for a manager that is gone, and says that it is."""
    for step in count(1):
        name = f"gone-{step}-{bool(password)}"
        manager = domain.managers.create(name)
        deleted = threading.Event()

        def delete(name: str = name, deleted: threading.Event = deleted) -> None:
            domain.delete(name)
            deleted.set()

        try:
            domain.rotation(step, delete).rotate(name, password)
        except ManagerNotFound:
            assert deleted.is_set()
        else:
            assert not deleted.is_set(), f"a rotation of nothing succeeded at step {step}"
            break
        assert manager.kek_id not in keks(running.folder), f"revived at step {step}"
    assert step > 3


def test_a_rotation_is_not_of_the_next_manager_by_that_name(running: Installation, domain: Domain) -> None:
    for step in count(1):
        name, anew = f"again-{step}", []
        domain.managers.create(name)

        def replace(name: str = name, anew: list[str] = anew) -> None:
            domain.delete(name)
            anew.append(domain.managers.create(name).kek_id)

        try:
            domain.rotation(step, replace).rotate(name)
        except ManagerNotFound:
            [kek_id] = anew
            assert domain.keys.current_version(kek_id) == 1, "the other one's key was rotated"
        else:
            assert not anew
            break


@pytest.mark.parametrize("again", [False, True])
def test_no_key_of_a_deleted_manager_gets_into_the_next_one_by_its_name(domain: Domain, again: bool) -> None:
    """A re-encryption, or an upload with an access code, that began before: it would lock the new one's data under a
    key that is destroyed."""
    for attempt in (_reencrypt, _upload):
        for step in (1, 2):
            name, anew = f"next-{attempt.__name__}-{step}-{again}", []
            domain.managers.create(name)

            def replace(name: str = name, anew: list[Manager] = anew) -> None:
                domain.delete(name)
                anew += [domain.managers.create(name)] if again else []

            with pytest.raises(ManagerNotFound):
                attempt(domain, KeysWithADelay(domain.channel, step, replace), name)
            for manager in anew:
                assert domain.managers.get(name) == manager
                assert len(domain.keys.unwrap(manager.domain_key_id, domain_context(name))) == 32
                domain.delete(name)


def _reencrypt(domain: Domain, keys: KeyClient, name: str) -> None:
    jobs = Reencryptions(domain.database, keys, domain.managers, lambda _names: None, lambda: None, domain.clock)
    jobs.start(name, "", "key:a")


def _upload(domain: Domain, keys: KeyClient, name: str) -> None:
    version_keys = VersionKeys(keys, domain.managers, Guesses(domain.database, domain.clock))
    uploads = Uploads(domain.database, domain.managers, version_keys, domain.clock)
    uploads.create("key:a", name, "scorer", "v1", access_code=AccessCode("a code", "key:a"))


def test_what_was_interrupted_is_completed_although_another_manager_is_deleted_meanwhile(
    running: Installation, domain: Domain
) -> None:
    def die() -> None:
        raise SystemExit

    for name in ("resumed-1", "resumed-2"):
        domain.managers.create(name)
        with pytest.raises(SystemExit):
            domain.rotation(4, die).rotate(name)  # the new version is there, the receipt is not
    domain.clock.ahead += timedelta(minutes=10)
    assert domain.rotation(1, lambda: domain.delete("resumed-1")).resume() == 2
    assert [receipt.to_version for receipt in domain.rotation(0, die).receipts("resumed-2")] == [2]
    assert domain.rotation(0, die).resume() == 0
    assert not any("resumed-1" in kek_id for kek_id in keks(running.folder))


def test_rotations_and_a_deletion_at_the_same_time(running: Installation) -> None:
    admin = running.admin
    managers = managers_pb2_grpc.ManagerServiceStub(admin.channel)
    rotations = rotation_pb2_grpc.RotationServiceStub(admin.channel)
    allowed = {"MANAGER_NOT_FOUND"}
    reasons: list[str] = []

    def rotate(name: str) -> None:
        while True:
            try:
                admin.call(rotations.RotateKeys, rotation_pb2.RotateKeysRequest(manager_id=name))
            except grpc.RpcError as error:
                status = rpc_status.from_call(error)
                reasons.append(str(status.details[0]) if status else str(error))
                return

    for number in range(8):
        name = f"busy-{number}"
        admin.call(managers.CreateManager, managers_pb2.CreateManagerRequest(manager_id=name, task_type="regression"))
        threads = [threading.Thread(target=rotate, args=[name]) for _ in range(3)]
        for thread in threads:
            thread.start()
        admin.call(managers.DeleteManager, managers_pb2.DeleteManagerRequest(manager_id=name))
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert len(reasons) == 24
    assert all(any(reason in found for reason in allowed) for found in reasons), reasons
    assert not any("busy" in kek_id for kek_id in keks(running.folder))


def test_killed_at_any_step_of_making_a_manager(tmp_path: Path) -> None:
    """There is a manager with its keys, or nothing in the end: its key-encryption key would open nothing for ever."""
    with mortal(tmp_path) as service:
        for step in count(1):
            name = f"m{step}"

            def create(name: str = name) -> None:
                stub = managers_pb2_grpc.ManagerServiceStub(service.admin.channel)
                request = managers_pb2.CreateManagerRequest(manager_id=name, task_type="regression")
                service.admin.call(stub.CreateManager, request)

            attempt = service.attempt(step, create)
            there = _there(service, name)
            assert there or not attempt.answered
            service.admin.collect(None)
            assert _has_kek(tmp_path, name) or not there, "a young one may be of somebody who is about to use it"
            service.admin.collect()
            assert _has_kek(tmp_path, name) == there, f"killed at {attempt.died_at}, a key of nobody stays"
            if attempt.died_at is None:
                break
            if not there:
                create()
                assert _has_kek(tmp_path, name)
        assert step > 2, "the steps are not seen any more"


def _there(service: Mortal, name: str) -> bool:
    stub = managers_pb2_grpc.ManagerServiceStub(service.admin.channel)
    try:
        service.admin.call(stub.GetManager, managers_pb2.GetManagerRequest(manager_id=name))
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return True


def _has_kek(folder: Path, name: str) -> bool:
    return any(kek_id.startswith(f"managers/{name}/") for kek_id in keks(folder))
