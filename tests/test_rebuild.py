"""The index is lost, and made anew from the stores; until then nothing of them is removed."""

import dataclasses
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from services.models import rebuild
from strongroom.models.v1 import managers_pb2, managers_pb2_grpc
from tests.models_installation import Caller, Installation, installation, noise, refused
from tests.replicated import Replicated, replicated, wait_for
from tests.serving import ADMINISTRATOR

Code = grpc.StatusCode
MIB = 1 << 20


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("rebuild")) as made:
        yield made


def index_files(running: Installation) -> list[Path]:
    return sorted((running.folder / "db").glob("strongroom-models*"))


@contextmanager
def another_index(running: Installation, backup: Path | None = None) -> Iterator[Caller]:
    """A service on the same stores whose database is new, or the backup."""
    for file in index_files(running):
        file.unlink()
    if backup is not None:
        shutil.copy(backup, running.folder / "db" / "strongroom-models.db")
    with running.models() as address, grpc.insecure_channel(address) as channel:
        yield Caller(channel, running.tokens, ADMINISTRATOR)


def copied(running: Installation) -> Path:
    """A backup of the index."""
    target = running.folder / "backup.db"
    with (
        closing(sqlite3.connect(running.folder / "db" / "strongroom-models.db")) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
    return target


@pytest.mark.row("S4.5")
def test_a_lost_index_is_rebuilt(running: Installation) -> None:
    first, second = noise(1, 3 * MIB), noise(2, 2 * MIB)
    running.admin.push("v1", {"a": first, "empty": b""})
    running.admin.push("v2", {"a": first, "b": second})
    running.admin.push("v1", {"a": second}, model="other")
    running.admin.push("gone", {"a": noise(3, MIB)})
    running.admin.delete("gone")
    shown = running.admin.show("v2")
    with another_index(running) as caller:
        with refused(Code.NOT_FOUND, "MANAGER_NOT_FOUND"):
            caller.read("v1", "a")
        planned = caller.rebuild(dry_run=True)
        assert (planned.versions_added, planned.trusted) == (3, False)
        rebuilt = caller.rebuild()
        assert (rebuilt.versions_added, rebuilt.managers_added, list(rebuilt.problems)) == (3, 1, [])
        assert rebuilt.trusted
        assert {"metrics", "tags", "aliases"} <= set(rebuilt.not_restored)
        assert caller.read("v1", "a") == first
        assert caller.read("v1", "empty") == b""
        assert caller.read("v1", "a", model="other") == second
        again = caller.show("latest")
        assert (again.version, again.size_bytes, again.files) == (shown.version, shown.size_bytes, shown.files)
        assert abs(again.created_at.ToSeconds() - shown.created_at.ToSeconds()) <= 1
        # It dedups as before, and what a collection removes is garbage.
        upload = caller.create("v3").upload_id
        assert caller.write(upload, [first[: 1 << 18]]).chunks_received == 1
        running.clock.ahead += timedelta(hours=48)
        caller.collect()
        assert caller.verify("v2").is_valid
        assert caller.rebuild().versions_known == 3


def test_a_list_that_leaves_manifests_out_does_not_cost_their_keys(
    running: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "OBJECT_AGE", timedelta())
    content = noise(20, MIB)
    running.admin.push("v1", {"a": content})
    running.admin.push("v2", {"b": noise(21, MIB)})
    hidden = min(running.stored("manifests"))
    aside = running.folder / "aside"
    hidden.rename(aside)
    with another_index(running) as caller:
        found = caller.rebuild()
        assert (found.versions_added, found.trusted) == (1, False)
        assert any("hide manifests" in problem for problem in found.problems)
        with refused(Code.FAILED_PRECONDITION, "INDEX_STALE"):
            caller.collect()
        aside.rename(hidden)
        assert caller.rebuild().trusted
        assert caller.read("v1", "a") == content


def test_an_index_that_was_lost_removes_nothing(running: Installation) -> None:
    running.admin.push("v1", {"a": noise(4, MIB)})
    before = running.stored()
    with another_index(running) as caller:
        running.clock.ahead += timedelta(hours=48)
        assert "rebuild" in caller.show_stores().index_problem
        for dry_run in (True, False):
            with refused(Code.FAILED_PRECONDITION, "INDEX_STALE"):
                caller.collect(dry_run=dry_run)
        assert running.stored() == before
        caller.rebuild()
        assert caller.show_stores().index_problem == ""
        assert caller.read("v1", "a") == noise(4, MIB)


def test_an_index_restored_from_a_backup_removes_nothing_of_what_came_after(running: Installation) -> None:
    running.admin.push("v1", {"a": noise(5, MIB)})
    running.admin.collect()
    backup = copied(running)
    running.admin.push("v2", {"a": noise(6, MIB)})
    running.admin.collect()
    with another_index(running, backup) as caller:
        running.clock.ahead += timedelta(hours=48)
        with refused(Code.FAILED_PRECONDITION, "INDEX_STALE"):
            caller.collect()
        rebuilt = caller.rebuild()
        assert (rebuilt.versions_added, rebuilt.versions_known) == (1, 1)
        caller.collect()
        assert caller.read("v2", "a") == noise(6, MIB)


def test_what_cannot_be_rebuilt_is_told_and_kept_until_it_is_given_up(running: Installation) -> None:
    running.admin.push("v1", {"a": noise(7, MIB)})
    pack = running.stored("packs")[0]
    running.admin.push("v2", {"a": noise(8, MIB)})
    pack.rename(running.folder / "aside")
    with another_index(running) as caller:
        rebuilt = caller.rebuild()
        assert (rebuilt.versions_added, rebuilt.trusted) == (1, False)
        [problem] = rebuilt.problems
        assert "default/scorer@v1" in problem
        with refused(Code.FAILED_PRECONDITION, "INDEX_STALE"):
            caller.collect()
        (running.folder / "aside").rename(pack)
        assert caller.rebuild().trusted
        assert caller.read("v1", "a") == noise(7, MIB)


def test_a_manifest_of_another_key_or_name_is_not_believed(running: Installation) -> None:
    running.admin.push("v1", {"a": noise(9, MIB)})
    running.admin.push("v2", {"a": noise(10, MIB)})
    first, second = running.stored("manifests")
    forged = first.with_name("0" * 26)
    forged.write_bytes(first.read_bytes())
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    with another_index(running) as caller:
        rebuilt = caller.rebuild()
        assert (rebuilt.versions_added, len(rebuilt.problems)) == (1, 2)
        assert [version.version for version in caller.list_versions().versions] == ["v1"]
        assert caller.rebuild(accept_losses=True).trusted


def test_deleted_weights_do_not_come_back(running: Installation) -> None:
    running.admin.push("v1", {"a": noise(11, MIB)})
    kept = {path: path.read_bytes() for path in running.stored()}
    running.admin.push("v2", {"a": noise(12, MIB)})
    running.admin.delete("v1")
    for path, data in kept.items():  # a store that was down at the time, or a thief's copy
        path.write_bytes(data)
    with another_index(running) as caller:
        rebuilt = caller.rebuild()
        assert rebuilt.versions_added == 1
        [problem] = rebuilt.problems
        assert "key" in problem


def test_protected_versions_come_back_with_their_codes(running: Installation) -> None:
    content = {"a": noise(14, MIB)}
    running.admin.push("v0", {"a": noise(15, MIB)})
    for code in ("first code", "second code"):
        running.admin.with_code(code).push(code.replace(" ", "-"), content)
    with another_index(running) as caller:
        open_only = caller.rebuild()
        assert (open_only.versions_added, len(open_only.problems), open_only.trusted) == (1, 2, False)
        assert caller.with_code("first code").rebuild().versions_added == 1
        last = caller.with_code("second code").rebuild()
        assert (last.versions_added, last.trusted) == (1, True)
        assert caller.with_code("first code").read("first-code", "a") == content["a"]
        with refused(Code.PERMISSION_DENIED, "ACCESS_CODE_REFUSED"):
            caller.with_code("first code").read("second-code", "a")


def test_what_is_not_encrypted_comes_back_only_if_it_is_asked_for(running: Installation) -> None:
    managers = managers_pb2_grpc.ManagerServiceStub(running.channel)
    config = managers_pb2.CreateManagerRequest(task_type="regression", manager_id="open", enable_encryption=False)
    running.admin.call(managers.CreateManager, config)
    running.admin.push("v0", {"a": noise(16, MIB)})
    in_open = dataclasses.replace(running.admin, manager="open")
    in_open.push("v1", {"a": noise(17, MIB)})
    with another_index(running) as caller:
        [problem] = caller.rebuild().problems
        assert "Not encrypted" in problem
        assert caller.rebuild(include_unencrypted=True).trusted
        assert dataclasses.replace(caller, manager="open").read("v1", "a") == noise(17, MIB)


@pytest.mark.row("S4.5")
def test_the_index_and_the_primary_are_lost_and_a_replica_has_it_all(tmp_path: Path) -> None:
    with replicated(tmp_path) as three:
        content = noise(13, 2 * MIB)
        three.running.admin.push("v1", {"a": content})
        three.synced()
        everything = three.objects("east")
        shutil.rmtree(three.folder("main"))
        three.folder("main").mkdir()
        with another_index(three.running) as caller:
            assert caller.rebuild(store="west").versions_added == 1
            assert caller.read("v1", "a") == content
            _assert_refilled(three, caller, everything)


def _assert_refilled(three: Replicated, caller: Caller, everything: dict[str, bytes]) -> None:
    caller.sync_stores()
    wait_for(lambda: three.objects("main") == everything)
