"""Crypto-shredding, proven on the disk: what opened the weights stands in no file any more."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from strongroom.models.v1 import managers_pb2, managers_pb2_grpc
from tests.models_installation import Caller, Installation, installation, noise, refused
from tests.test_rotation import Rotations

SHARED = noise(31, 900_000)
OWN = noise(32, 900_000)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as made:
        yield made


def column(running: Installation, service: str, query: str) -> list[bytes]:
    with closing(sqlite3.connect(running.folder / "db" / f"strongroom-{service}.db", timeout=20)) as connection:
        return [value for (value,) in connection.execute(query)]


def on_disk(running: Installation, needles: Iterable[bytes]) -> list[str]:
    """The files, write-ahead logs among them, in which one of these stands: none that is looked for may be short."""
    needles = list(needles)
    assert needles
    assert all(len(needle) >= 16 for needle in needles)
    files = [path for path in running.folder.rglob("*") if path.is_file()]
    return [path.name for path in files if any(needle in path.read_bytes() for needle in needles)]


def salts(running: Installation, of: str) -> set[bytes]:
    query = f"SELECT salt FROM chunks JOIN version_chunks ON chunk = chunks.id JOIN versions ON version = versions.id WHERE {of}"  # noqa: S608, E501
    return set(column(running, "models", query))


def wrapped(running: Installation, key_ids: Iterable[str]) -> list[bytes]:
    names = ", ".join(f"'{key_id}'" for key_id in key_ids)
    return column(running, "secrets", f"SELECT wrapped FROM keys WHERE id IN ({names})")  # noqa: S608


@pytest.mark.row("B2")
def test_of_a_deleted_version_neither_key_nor_salt_nor_manifest_is_left(running: Installation) -> None:
    running.admin.push("v1", {"a": SHARED})
    running.admin.push("v2", {"a": SHARED, "b": OWN})
    own = salts(running, "versions.name = 'v2'") - salts(running, "versions.name = 'v1'")
    data_key = wrapped(running, column(running, "models", "SELECT data_key_id FROM versions WHERE name = 'v2'"))
    [uid] = column(running, "models", "SELECT uid FROM versions WHERE name = 'v2'")
    manifest = (running.folder / "weights" / "manifests" / str(uid).lower()).read_bytes()
    packs = {path: path.read_bytes() for path in running.stored("packs")}
    assert on_disk(running, own)
    assert on_disk(running, data_key)

    deletion = running.admin.delete("v2")
    assert deletion.shredded_chunks == len(own)
    assert deletion.shared_chunks == len(salts(running, "versions.name = 'v1'"))

    assert on_disk(running, own) == []
    assert on_disk(running, data_key) == []
    assert on_disk(running, [manifest[-64:]]) == []
    # The packs are there still, and are noise: without its salt a blob has no key.
    assert {path: path.read_bytes() for path in running.stored("packs")} == packs
    assert running.admin.read("v1", "a") == SHARED


@pytest.mark.row("B2")
@pytest.mark.row("S0.2")
def test_of_a_deleted_manager_no_key_is_left(running: Installation) -> None:
    rotations = Rotations(running.admin)
    manager = rotations.create()
    admin = replace(running.admin, manager=manager)
    admin.push("v1", {"a": SHARED})
    admin.with_code("a code").push("v2", {"a": OWN})
    admin.create("v3")
    of_manager = f"kek_id LIKE 'managers/{manager}/%'"
    keys = column(running, "secrets", f"SELECT wrapped FROM keys WHERE {of_manager}")  # noqa: S608
    keks = column(running, "secrets", f"SELECT wrapped FROM kek_versions WHERE {of_manager}")  # noqa: S608
    chunks = salts(running, f"chunks.manager_id = '{manager}'")
    # Domain secret, data key, and the one that the code locks.
    assert (len(keys), len(keks)) == (3, 1)
    _delete_manager(running.admin, manager)
    for needles in (keys, keks, chunks):
        assert on_disk(running, needles) == []
    running.admin.collect()
    assert running.stored("packs") == running.stored("manifests") == []
    # One of the same name has nothing of it.
    again = rotations.create(manager_id=manager)
    with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
        replace(running.admin, manager=again).read("v1", "a")


@pytest.mark.row("B2")
def test_a_manager_that_is_deleted_while_the_key_service_is_down_is_shredded_later(running: Installation) -> None:
    rotations = Rotations(running.admin)
    manager = rotations.create()
    admin = replace(running.admin, manager=manager)
    admin.push("v1", {"a": OWN})
    query = f"SELECT wrapped FROM kek_versions WHERE kek_id LIKE 'managers/{manager}/%'"  # noqa: S608
    keks = column(running, "secrets", query)
    with running.secrets_down():
        _delete_manager(running.admin, manager)
    # A new one of that name, made before the old one's keys are gone, keeps its own.
    again = replace(running.admin, manager=rotations.create(manager_id=manager))
    again.push("v1", {"a": SHARED})
    running.admin.collect()
    assert on_disk(running, keks) == []
    assert again.read("v1", "a") == SHARED


@pytest.mark.row("B2")
def test_of_a_rotated_key_the_old_version_is_not_left(running: Installation) -> None:
    running.admin.push("v1", {"a": OWN})
    query = "SELECT wrapped FROM kek_versions WHERE kek_id LIKE 'managers/default/%'"
    old = column(running, "secrets", query) + column(running, "secrets", "SELECT wrapped FROM keys")
    Rotations(running.admin).rotate()
    kept = column(running, "secrets", "SELECT wrapped FROM keys")
    assert on_disk(running, set(old) - set(kept)) == []
    assert running.admin.read("v1", "a") == OWN


@pytest.mark.row("B2")
def test_after_a_reencryption_nothing_opens_what_was_stored_before(running: Installation) -> None:
    running.admin.push("v1", {"a": OWN})
    rotations = Rotations(running.admin)
    old = [*salts(running, "1 = 1"), *column(running, "secrets", "SELECT wrapped FROM keys WHERE owner = 'models'")]
    packs = set(running.stored("packs"))
    assert rotations.finished(rotations.reencrypt()).state == "done"
    assert on_disk(running, old) == []
    running.admin.collect()
    assert not packs & set(running.stored("packs"))
    assert running.admin.read("v1", "a") == OWN


def _delete_manager(caller: Caller, manager: str) -> None:
    stub = managers_pb2_grpc.ManagerServiceStub(caller.channel)
    caller.call(stub.DeleteManager, managers_pb2.DeleteManagerRequest(manager_id=manager))
