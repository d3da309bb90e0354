"""What is stored of a manager: it survives a restart, damage to it is found, and once deleted it is gone."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.models.tables import METADATA
from strongroom.models.v1 import managers_pb2 as pb
from strongroom.models.v1 import managers_pb2_grpc, models_pb2
from tests.models_installation import Installation, installation, noise, principal, refused
from tests.serving import ADMINISTRATOR


class Managers:
    """What a caller of the models service does with managers."""

    def __init__(self, running: Installation, channel: grpc.Channel | None = None, who: Any = ADMINISTRATOR) -> None:
        self._metadata = running.tokens.metadata("models", who)
        self._stub = managers_pb2_grpc.ManagerServiceStub(channel or running.channel)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        kind = getattr(pb, f"{method}Request")
        return lambda **fields: getattr(self._stub, method)(kind(**fields), metadata=self._metadata, timeout=60)

    def create(self, **fields: Any) -> str:
        return str(self.CreateManager(**{"task_type": "regression"} | fields).details.manager_id)

    def upload(self, manager: str, name: str, data: bytes) -> str:
        def messages() -> Iterator[pb.UploadModelRequest]:
            yield pb.UploadModelRequest(manager_id=manager, filename=name)
            for start in range(0, len(data), 1 << 20):
                message = pb.UploadModelRequest()
                message.body.data = data[start : start + (1 << 20)]
                yield message

        answer = self._stub.UploadModel(messages(), metadata=self._metadata, timeout=60)
        return str(answer.details.filepath)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as made:
        yield made


@pytest.mark.row("S0.2")
@pytest.mark.row("S0.5")
def test_managers_on_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    """Everything that asks the database, and deletion and uploads at the same time."""
    with installation(tmp_path, postgresql_url) as running:
        managers = Managers(running)
        manager = managers.create(primary_metric="accuracy")
        paths = [managers.upload(manager, f"{name}.pkl", noise(1, 2 << 20)) for name in ("a", "b", "b")]
        for name, value in (("a", 0.5), ("b", 0.25), ("a", 0.75)):
            found = managers.RecordMetrics(
                manager_id=manager, model_name=name, version="latest", metrics={"accuracy": value, "seconds": 3}
            )
            assert found.metrics["accuracy"] == value
        assert managers.GetManager(manager_id=manager).best_model == "a"
        assert [found.manager_id for found in managers.ListManagers(page_size=1).managers] == [min(manager, "default")]
        managers.SaveModel(manager_id=manager, model_name="a")
        managers.SaveModel(manager_id=manager, model_name="b", filepath="a.pkl")
        assert not managers.LoadModel(manager_id=manager, filepath="a.pkl").details.is_best_model
        assert all(managers.VerifyModel(manager_id=manager, filepath=path).is_valid for path in paths)
        _delete_and_upload(managers, manager)
        with refused(grpc.StatusCode.NOT_FOUND, "MANAGER_NOT_FOUND"):
            managers.GetManager(manager_id=manager)
        assert managers.create(manager_id=manager) == manager
        assert managers.GetManager(manager_id=manager).models_count == 0


@pytest.mark.row("S0.2")
def test_managers_and_their_paths_survive_a_restart(running: Installation) -> None:
    first = Managers(running)
    manager = first.create(model_path="./models/x", primary_metric="mse", hash_algorithm="sha256", use_scrypt=False)
    path = first.upload(manager, "scorer.pkl", noise(1, 100_000))
    first.RecordMetrics(manager_id=manager, model_name="scorer", version="latest", metrics={"mse": 0.5})
    before = first.GetManager(manager_id=manager)
    with running.models() as address, grpc.insecure_channel(address) as channel:
        again = Managers(running, channel)
        assert again.GetManager(manager_id=manager) == before
        assert (before.hash_algorithm, before.use_scrypt, before.best_model) == ("sha256", False, "scorer")
        assert again.LoadModel(manager_id=manager, filepath=path).details.is_best_model
        assert again.VerifyModel(manager_id=manager, filepath=path).is_valid


def tables_naming(folder: Path, manager: str) -> list[str]:
    """The tables in which a row still belongs to the manager."""
    with closing(sqlite3.connect(folder / "db" / "strongroom-models.db")) as connection:
        owned = [table.name for table in METADATA.sorted_tables if "manager_id" in table.c]
        query = "SELECT count(*) FROM {} WHERE manager_id = ?"
        counts = {name: connection.execute(query.format(name), [manager]) for name in owned}
        return [name for name, count in counts.items() if count.fetchone()[0]]


@pytest.mark.row("S0.2")
@pytest.mark.row("B2")
def test_a_deleted_manager_is_gone_with_its_keys(running: Installation) -> None:
    managers = Managers(running)
    manager, other = managers.create(), managers.create()
    secret = noise(7, 3 << 20)
    for owner in (manager, other):
        managers.upload(owner, "scorer.pkl", secret)
        managers.SaveModel(manager_id=owner, model_name="scorer")
    assert set(tables_naming(running.folder, manager)) >= {"models", "chunks", "manager_paths"}
    with closing(sqlite3.connect(running.folder / "db" / "strongroom-secrets.db")) as connection:
        query = f"SELECT count(*) FROM keys WHERE kek_id LIKE '%{manager}%'"  # noqa: S608 - an id of ours
        assert connection.execute(query).fetchone()[0] == 2
        managers.DeleteManager(manager_id=manager)
        assert connection.execute(query).fetchone()[0] == 0
    assert tables_naming(running.folder, manager) == []
    assert managers.VerifyModel(manager_id=other, filepath="scorer.pkl").is_valid
    running.clock.ahead += timedelta(days=2)
    packs = len(running.stored("packs"))
    assert running.admin.collect().deleted_packs == 1
    assert len(running.stored("packs")) == packs - 1
    assert managers.VerifyModel(manager_id=other, filepath="scorer.pkl").is_valid


def _delete_and_upload(managers: Managers, manager: str) -> None:
    """Three of each at a time: none fails but for good reason."""
    outcomes: list[str] = []

    def attempt(action: Callable[[], object]) -> None:
        try:
            action()
            outcomes.append("OK")
        except grpc.RpcError as error:
            outcomes.append(error.code().name)

    delete = partial(managers.DeleteManager, manager_id=manager)
    upload = partial(managers.upload, manager, "scorer.pkl", noise(3, 2 << 20))
    threads = [threading.Thread(target=attempt, args=[action]) for action in (delete, upload) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {"OK", "NOT_FOUND", "ABORTED"}


@pytest.mark.row("S0.2")
def test_a_deletion_and_uploads_at_the_same_time_leave_nothing(running: Installation) -> None:
    managers = Managers(running)
    manager = managers.create()
    _delete_and_upload(managers, manager)
    with refused(grpc.StatusCode.NOT_FOUND, "MANAGER_NOT_FOUND"):
        managers.GetManager(manager_id=manager)
    assert tables_naming(running.folder, manager) == []


@pytest.mark.row("S0.1")
def test_of_several_who_create_one_manager_one_wins(running: Installation) -> None:
    managers = Managers(running)
    outcomes: list[str] = []

    def create() -> None:
        try:
            outcomes.append(managers.create(manager_id="fraud"))
        except grpc.RpcError as error:
            outcomes.append(error.code().name)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["ALREADY_EXISTS"] * 3 + ["fraud"]
    managers.upload("fraud", "scorer.pkl", b"works")


@pytest.mark.row("S0.6")
@pytest.mark.parametrize("damage", ["changed", "missing", "reordered", "truncated", "extended"])
def test_any_damage_is_found(running: Installation, damage: str) -> None:
    managers = Managers(running)
    manager = managers.create()
    path = managers.upload(manager, "scorer.pkl", noise(5, 6 << 20))
    pack = max(running.stored("packs"), key=lambda pack: pack.stat().st_size)
    data = pack.read_bytes()
    middle = len(data) // 2
    pack.chmod(0o600)
    if damage == "missing":
        pack.unlink()
    else:
        pack.write_bytes(
            {
                "changed": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
                "reordered": data[:65536] + data[131072:196608] + data[65536:131072] + data[196608:],
                "truncated": data[:-1],
                "extended": data + b"x",
            }[damage]
        )
    answer = managers.VerifyModel(manager_id=manager, filepath=path)
    assert (answer.is_valid, answer.encryption_status) == (False, "encrypted")


@pytest.mark.row("S0.10")
def test_files_are_private_and_hold_nothing_readable(running: Installation) -> None:
    managers = Managers(running)
    manager = managers.create(model_path="./models/secret-project")
    managers.upload(manager, "scorer.pkl", b"recognizable weights" * 10_000)
    for path in (running.folder / "weights").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
        assert path.is_dir() or b"recognizable" not in path.read_bytes()
        assert "scorer" not in path.name
    assert not (running.folder / "models").exists()
    assert not (running.folder / "weights" / "models").exists()


@pytest.mark.row("S0.10")
def test_a_pickle_is_stored_and_never_opened(running: Installation, tmp_path: Path) -> None:
    marker = tmp_path / "opened"
    exploit = b"cos\nsystem\n(S'touch " + os.fsencode(marker) + b"'\ntR."
    managers = Managers(running)
    manager = managers.create(enable_quantization=True)
    for name in ("scorer.pkl", "scorer.npz", "scorer.safetensors"):
        path = managers.upload(manager, name, exploit)
        managers.SaveModel(manager_id=manager, model_name="scorer")
        assert managers.LoadModel(manager_id=manager, filepath=path).success
        assert managers.VerifyModel(manager_id=manager, filepath=path).is_valid
    assert not marker.exists()


def test_a_deleted_version_takes_its_paths_along(running: Installation) -> None:
    managers = Managers(running)
    path = managers.upload("default", "scorer.pkl", b"one")
    version = running.admin.call(
        running.admin.models.GetVersion,
        models_pb2.GetVersionRequest(manager_id="default", model_name="scorer", version="latest"),
    )
    managers.SaveModel(manager_id="default", model_name="scorer")
    running.admin.delete(version.version)
    for where in (path, "scorer.pkl"):
        with refused(grpc.StatusCode.NOT_FOUND, "PATH_NOT_FOUND"):
            managers.LoadModel(manager_id="default", filepath=where)


def test_a_path_stands_for_what_was_saved_last(running: Installation) -> None:
    managers = Managers(running)
    for number in range(3):
        running.admin.push(f"v{number}", {"scorer.bin": noise(number, 1000)})
        managers.SaveModel(manager_id="default", model_name="scorer", filepath="best.bin")
    assert managers.LoadModel(manager_id="default", filepath="best.bin").success
    running.admin.delete("v0")
    assert managers.LoadModel(manager_id="default", filepath="best.bin").success
    running.admin.delete("v2")
    with refused(grpc.StatusCode.NOT_FOUND, "PATH_NOT_FOUND"):
        managers.LoadModel(manager_id="default", filepath="best.bin")


def test_a_folder_is_saved_and_loaded_as_one(running: Installation) -> None:
    managers = Managers(running)
    running.admin.push("v1", {"a/weights.bin": noise(1, 5000), "config.json": b"{}"})
    saved = managers.SaveModel(manager_id="default", model_name="scorer", filepath="folder")
    assert managers.LoadModel(manager_id="default", filepath=saved.details.filepath).details.model_name == "scorer"
    assert managers.VerifyModel(manager_id="default", filepath="folder").is_valid


def test_an_upload_that_breaks_off_leaves_nothing(running: Installation) -> None:
    managers = Managers(running)
    manager = managers.create()
    stub = managers_pb2_grpc.ManagerServiceStub(running.channel)
    waiting = threading.Event()

    def messages() -> Iterator[pb.UploadModelRequest]:
        yield pb.UploadModelRequest(manager_id=manager, filename="scorer.pkl")
        message = pb.UploadModelRequest()
        message.body.data = noise(1, 1 << 20)
        yield message
        waiting.wait(10)

    call = stub.UploadModel.future(messages(), metadata=running.tokens.metadata("models", ADMINISTRATOR))
    call.cancel()
    waiting.set()
    managers.upload(manager, "other.pkl", b"x")
    assert list(managers.ListModelNames(manager_id=manager).models) == ["other"]


def test_a_writer_who_may_not_read_can_upload_and_learns_nothing(running: Installation) -> None:
    manager = Managers(running).create()
    writer = Managers(running, who=principal("w", "models.write", resources=(f"managers/{manager}/models/*",)))
    path = writer.upload(manager, "scorer.pkl", b"x")
    for method, fields in (
        ("LoadModel", {"filepath": path}),
        ("VerifyModel", {"filepath": path}),
        ("ListModelNames", {}),
        ("SaveModel", {"model_name": "scorer"}),
        ("GetManager", {}),
        ("DeleteManager", {}),
    ):
        with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"):
            getattr(writer, method)(manager_id=manager, **fields)
