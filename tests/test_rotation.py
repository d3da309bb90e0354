"""Rotation: keys re-wrapped with a receipt, everything readable throughout; weights written anew under new keys."""

import base64
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.models import tables as t
from strongroom.models.v1 import managers_pb2, managers_pb2_grpc, rotation_pb2, rotation_pb2_grpc
from tests.models_installation import Caller, Installation, installation, noise, refused
from tests.serving import ADMINISTRATOR, make_identities

WEIGHTS = {"weights.bin": noise(11, 2_500_000), "config.json": b"{}"}
CODE = "only the owner knows"


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("rotation")) as made:
        yield made


class Rotations:
    """What an administrator does with keys."""

    def __init__(self, caller: Caller) -> None:
        self.stub = rotation_pb2_grpc.RotationServiceStub(caller.channel)
        self.managers = managers_pb2_grpc.ManagerServiceStub(caller.channel)
        self.caller = caller

    def rotate(self, manager: str = "default", **fields: Any) -> rotation_pb2.RotateKeysResponse:
        return self.caller.call(self.stub.RotateKeys, rotation_pb2.RotateKeysRequest(manager_id=manager, **fields))

    def list(self, manager: str = "default") -> list[rotation_pb2.RotateKeysResponse]:
        request = rotation_pb2.ListRotationsRequest(manager_id=manager)
        return list(self.caller.call(self.stub.ListRotations, request).rotations)

    def reencrypt(self, manager: str = "default", model: str = "") -> rotation_pb2.Reencryption:
        request = rotation_pb2.ReencryptRequest(manager_id=manager, model_name=model)
        return self.caller.call(self.stub.Reencrypt, request)

    def finished(self, job: rotation_pb2.Reencryption, seconds: float = 30) -> rotation_pb2.Reencryption:
        request = rotation_pb2.GetReencryptionRequest(manager_id=job.manager_id, reencryption_id=job.reencryption_id)
        deadline = time.monotonic() + seconds
        while (shown := self.caller.call(self.stub.GetReencryption, request)).state == "running":
            assert time.monotonic() < deadline, shown
            time.sleep(0.05)
        return shown

    def create(self, **fields: Any) -> str:
        request = managers_pb2.CreateManagerRequest(task_type="regression", **fields)
        return self.caller.call(self.managers.CreateManager, request).details.manager_id


@pytest.fixture
def rotations(running: Installation) -> Rotations:
    return Rotations(running.admin)


def rows(folder: Path, service: str, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "db" / f"strongroom-{service}.db", timeout=20)) as connection:
        found = connection.execute(query).fetchall()
        connection.commit()
        return found


@pytest.mark.row("B2")
def test_rotation_wraps_every_key_anew_and_moves_no_weights(running: Installation, rotations: Rotations) -> None:
    running.admin.push("v1", WEIGHTS, "rotated")
    before = {path: path.stat().st_mtime_ns for path in running.stored()}
    wrapped = dict(rows(running.folder, "secrets", "SELECT id, wrapped FROM keys WHERE owner = 'models'"))
    receipt = rotations.rotate()
    assert receipt.to_version == receipt.from_version + 1
    assert receipt.rewrapped_keys >= 2
    assert not receipt.using_password
    assert rotations.list()[0] == receipt
    assert {path: path.stat().st_mtime_ns for path in running.stored()} == before
    anew = dict(rows(running.folder, "secrets", "SELECT id, wrapped FROM keys WHERE owner = 'models'"))
    kek = "SELECT version FROM kek_versions WHERE owner = 'models' AND kek_id LIKE 'managers/default/%'"
    assert rows(running.folder, "secrets", kek) == [(receipt.to_version,)], "the old version is destroyed"
    assert all(anew[key] != old for key, old in wrapped.items() if key in anew)
    assert running.admin.read("v1", "weights.bin", "rotated") == WEIGHTS["weights.bin"]


@pytest.mark.row("S0.7")
def test_every_version_is_readable_after_a_rotation_and_a_restart(tmp_path: Path) -> None:
    with installation(tmp_path) as running:
        running.admin.push("v1", WEIGHTS)
        running.admin.with_code(CODE).push("v2", WEIGHTS)
        assert Rotations(running.admin).rotate(password="a password").using_password
        with running.secrets_down():
            pass
        with running.models() as address, grpc.insecure_channel(address) as channel:
            admin = replace(running.admin, channel=channel)
            assert admin.read("v1", "weights.bin") == WEIGHTS["weights.bin"]
            assert admin.with_code(CODE).read("v2", "weights.bin") == WEIGHTS["weights.bin"]
            with refused(grpc.StatusCode.PERMISSION_DENIED, "ACCESS_CODE_REFUSED"):
                admin.read("v2", "weights.bin")


@pytest.mark.row("S0.11")
@pytest.mark.parametrize(
    ("config", "function"),
    [
        ({}, "scrypt"),
        ({"use_scrypt": False, "hash_algorithm": "sha256", "key_iterations": 100_000}, "pbkdf2"),
    ],
)
def test_a_password_becomes_a_key_as_the_manager_was_configured(
    running: Installation, rotations: Rotations, config: dict[str, Any], function: str
) -> None:
    manager = rotations.create(**config)
    assert rotations.rotate(manager, password="a password").using_password
    query = f"SELECT derivation FROM kek_versions WHERE kek_id LIKE 'managers/{manager}/%'"  # noqa: S608
    [(derivation,)] = rows(running.folder, "secrets", query)
    assert f'"function": "{function}"' in derivation
    assert not rotations.rotate(manager).using_password


@pytest.mark.row("S0.10")
def test_no_password_stands_on_the_disk(running: Installation, rotations: Rotations) -> None:
    password = "password-that-nobody-else-writes"
    rotations.rotate(password=password)
    for path in running.folder.rglob("*"):
        assert not path.is_file() or password.encode() not in path.read_bytes(), path


@pytest.mark.row("S0.7")
def test_a_manager_without_encryption_has_no_key_to_rotate(rotations: Rotations) -> None:
    manager = rotations.create(enable_encryption=False)
    for attempt in (rotations.rotate, rotations.reencrypt):
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "MANAGER_NOT_ENCRYPTED"):
            attempt(manager)


def test_an_unknown_manager_is_not_found(rotations: Rotations) -> None:
    for attempt in (rotations.rotate, rotations.reencrypt, rotations.list):
        with refused(grpc.StatusCode.NOT_FOUND, "MANAGER_NOT_FOUND"):
            attempt("nobody")


def test_keys_of_before_contexts_were_kept_rotate_too(running: Installation, rotations: Rotations) -> None:
    """As an installation that was brought up to date has them."""
    running.admin.push("v1", {"a": b"x"}, "older")
    rows(running.folder, "secrets", "UPDATE keys SET context = NULL WHERE owner = 'models'")
    receipt = rotations.rotate()
    left = "SELECT count(*) FROM keys WHERE kek_id LIKE 'managers/default/%' AND kek_version < (SELECT max(kek_version)"
    left += " FROM keys WHERE kek_id LIKE 'managers/default/%') AND context IS NOT NULL"
    assert rows(running.folder, "secrets", left) == [(0,)]
    assert receipt.rewrapped_keys >= 2
    assert running.admin.read("v1", "a", "older") == b"x"


def test_uploads_go_on_while_keys_rotate(running: Installation, rotations: Rotations) -> None:
    failures: list[BaseException] = []

    def push(number: int) -> None:
        try:
            for turn in range(5):
                running.admin.push(f"v{turn}", {"a": noise(number * 10 + turn, 70_000)}, f"busy-{number}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=push, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        rotations.rotate()
    for thread in threads:
        thread.join()
    assert failures == []
    rotations.rotate()
    for number in range(3):
        for turn in range(5):
            assert running.admin.read(f"v{turn}", "a", f"busy-{number}") == noise(number * 10 + turn, 70_000)


def test_a_rotation_that_a_crash_interrupted_is_completed(tmp_path: Path) -> None:
    """Between the new version and the receipt; and before the new version, when nothing has happened yet."""
    with installation(tmp_path) as running:
        running.admin.push("v1", {"a": b"x"})
        rotations = Rotations(running.admin)
        rotations.rotate()
        c = t.rotations.c
        columns = ", ".join(column.name for column in c if column.name != "id")
        rows(
            tmp_path,
            "models",
            f"INSERT INTO rotations (id, {columns}) SELECT 'never', {columns} FROM rotations",  # noqa: S608
        )
        rows(
            tmp_path, "models", "UPDATE rotations SET started_at = '2020-01-01', finished_at = NULL, to_version = NULL"
        )
        rows(tmp_path, "models", "UPDATE rotations SET from_version = from_version + 1 WHERE id = 'never'")
        with running.models():
            deadline = time.monotonic() + 20
            while rows(tmp_path, "models", "SELECT count(*) FROM rotations WHERE finished_at IS NULL") != [(0,)]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        [receipt] = rotations.list()
        assert (receipt.from_version, receipt.to_version) == (1, 2)
        assert running.admin.read("v1", "a") == b"x"


@pytest.mark.row("S4.6")
def test_reencryption_writes_every_byte_under_new_keys(running: Installation, rotations: Rotations) -> None:
    manager = rotations.create()
    admin = _in_manager(running.admin, manager)
    shared = noise(5, 1_500_000)
    admin.push("v1", {"a": shared, "b": noise(6, 100_000)})
    admin.push("v2", {"a": shared, "empty": b""})
    admin.with_code(CODE).push("v3", {"a": shared})
    before = _keys_of(running, manager)
    blobs = _blobs(running, manager)
    job = rotations.finished(rotations.reencrypt(manager))
    assert (job.state, job.versions_done, job.versions_left, job.error) == ("done", 2, 0, "")
    assert list(job.skipped_versions) == ["scorer@v3"]
    assert admin.read("v1", "a") == admin.read("v2", "a") == shared
    assert admin.with_code(CODE).read("v3", "a") == shared
    for version in ("v1", "v2"):
        assert admin.verify(version).is_valid
    after = _keys_of(running, manager)
    # Two data keys and the domain secret; the protected version keeps its own.
    assert len(before & after) == 1
    assert len(before) == len(after) == 4
    assert len(blobs & _blobs(running, manager)) == len(_protected_blobs(running, manager))
    # What is the same is still stored once, and what comes next goes into the new domain.
    count = len(_blobs(running, manager))
    admin.push("v4", {"a": shared})
    assert len(_blobs(running, manager)) == count


@pytest.mark.row("S4.6")
def test_one_model_is_reencrypted_alone(running: Installation, rotations: Rotations) -> None:
    manager = rotations.create()
    admin = _in_manager(running.admin, manager)
    shared = noise(8, 600_000)
    for model in ("one", "two"):
        admin.push("v1", {"a": shared}, model)
    before = _keys_of(running, manager)
    job = rotations.finished(rotations.reencrypt(manager, "one"))
    assert (job.state, job.versions_done) == ("done", 1)
    # The other still needs the old domain secret.
    assert len(before - _keys_of(running, manager)) == 1
    assert admin.read("v1", "a", "one") == admin.read("v1", "a", "two") == shared
    admin.delete("v1", "two")
    assert len(before & _keys_of(running, manager)) == 0
    with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
        rotations.reencrypt(manager, "two")


def test_an_upload_into_the_old_domain_is_given_up(running: Installation, rotations: Rotations) -> None:
    """What would come in late would be under the keys that are to go."""
    manager = rotations.create()
    admin = _in_manager(running.admin, manager)
    upload = admin.create("v1").upload_id
    admin.write(upload, [b"x"])
    locked = admin.with_code(CODE)
    kept = locked.create("v2").upload_id
    locked.write(kept, [b"x"])
    rotations.finished(rotations.reencrypt(manager))
    with refused(grpc.StatusCode.NOT_FOUND, "UPLOAD_NOT_FOUND"):
        admin.commit(upload, {"a": b"x"})
    admin.push("v1", {"a": b"x"})
    locked.commit(kept, {"a": b"x"})
    assert admin.read("v1", "a") == locked.read("v2", "a") == b"x"


def test_a_damaged_version_stays_as_it_is_and_is_named(running: Installation, rotations: Rotations) -> None:
    manager = rotations.create()
    admin = _in_manager(running.admin, manager)
    admin.push("v1", {"a": noise(21, 10_000)})
    [pack] = sorted(running.stored("packs"), key=lambda path: path.stat().st_mtime_ns)[-1:]
    content = pack.read_bytes()
    admin.push("v2", {"a": noise(22, 10_000)})
    pack.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    job = rotations.finished(rotations.reencrypt(manager))
    assert (job.state, job.versions_done, job.versions_left) == ("failed", 1, 1)
    assert "scorer@v1" in job.error
    pack.write_bytes(content)
    assert admin.read("v1", "a") == noise(21, 10_000)
    assert rotations.finished(rotations.reencrypt(manager)).state == "done"
    assert admin.read("v1", "a") == noise(21, 10_000)


def test_a_reencryption_that_was_interrupted_goes_on_after_the_restart(tmp_path: Path) -> None:
    content = {number: noise(number, 400_000) for number in range(12)}
    with new_installation(tmp_path) as running, _models(running) as admin:
        for number, data in content.items():
            admin.push(f"v{number}", {"a": data})
    with new_installation(tmp_path) as running:
        with _models(running) as admin:
            before = _keys_of(running, "default")
            job = Rotations(admin).reencrypt()
        # Stopped in the middle: some versions are in the new domain, some in the old one, and all of them open.
        assert rows(tmp_path, "models", "SELECT state FROM reencryptions") == [("running",)]
        with _models(running) as admin:
            for number, data in content.items():
                assert _patiently(lambda number=number: admin.read(f"v{number}", "a")) == data
            assert Rotations(admin).finished(job).versions_done == len(content)
            assert not before & _keys_of(running, "default")
            for number, data in content.items():
                assert admin.read(f"v{number}", "a") == data
            admin.collect()
            uploads = "SELECT count(*) FROM uploads WHERE creator LIKE 'reencryption:%'"
            assert rows(tmp_path, "models", uploads) == [(0,)]


def test_versions_are_read_and_deleted_while_they_are_reencrypted(running: Installation, rotations: Rotations) -> None:
    manager = rotations.create()
    admin = _in_manager(running.admin, manager)
    content = {number: noise(40 + number, 300_000) for number in range(8)}
    for number, data in content.items():
        admin.push(f"v{number}", {"a": data})
    job = rotations.reencrypt(manager)
    admin.delete("v7")
    for _ in range(3):
        for number in range(7):
            assert _patiently(lambda number=number: admin.read(f"v{number}", "a")) == content[number]
    assert rotations.finished(job).state == "done"
    for number in range(7):
        assert admin.read(f"v{number}", "a") == content[number]


@contextmanager
def new_installation(folder: Path) -> Iterator[Installation]:
    """A secrets service over the folder, as often as it takes; models services are the test's to run."""
    if not (folder / "root.key").exists():
        (folder / "root.key").touch(mode=0o600)
        (folder / "root.key").write_bytes(base64.b64encode(os.urandom(32)))
        make_identities(folder / "keys")
    running = Installation(folder)
    running.start_secrets("127.0.0.1:0")
    try:
        yield running
    finally:
        running.secrets.close()


@contextmanager
def _models(running: Installation) -> Iterator[Caller]:
    with running.models() as address, grpc.insecure_channel(address) as channel:
        yield Caller(channel, running.tokens, ADMINISTRATOR)


def _patiently(read: Callable[[], bytes]) -> bytes:
    """As a client reads: a version that is exchanged between two of its chunks is asked for again."""
    while True:
        try:
            return read()
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error  # noqa: PT017


def _in_manager(caller: Caller, manager: str) -> Caller:
    return replace(caller, manager=manager)


def _keys_of(running: Installation, manager: str) -> set[str]:
    query = f"SELECT id FROM keys WHERE kek_id LIKE 'managers/{manager}/%'"  # noqa: S608
    return {key for (key,) in rows(running.folder, "secrets", query)}


def _blobs(running: Installation, manager: str) -> set[bytes]:
    query = f"SELECT blob_id FROM chunks WHERE manager_id = '{manager}'"  # noqa: S608
    return {blob for (blob,) in rows(running.folder, "models", query)}


def _protected_blobs(running: Installation, manager: str) -> set[bytes]:
    protected = (
        "SELECT chunk FROM version_chunks JOIN versions ON version = versions.id WHERE data_key_id = domain_key_id"
    )
    query = f"SELECT blob_id FROM chunks WHERE manager_id = '{manager}' AND id IN ({protected})"  # noqa: S608
    return {blob for (blob,) in rows(running.folder, "models", query)}
