"""Replicas as users and operators see them: through the gateway, over REST and gRPC, and on the command line."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from strongroom import Client
from strongroom.errors import StrongroomError
from tests.models_installation import noise
from tests.replicated import stores_file
from tests.stack import RunningStack, Stack
from tests.terminal import Terminal
from tests.test_gateway_rest import admin, assert_problem
from tests.test_tensors import entry, file_of

MIB = 1 << 20


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the three stores."""
    folder = tmp_path_factory.mktemp("replicas-gateway")
    stores_file(folder, cache={"path": "cache", "max_size_gb": 0.1})
    return folder


@pytest.fixture(scope="module")
def running(stores: Path) -> Iterator[RunningStack]:
    made = RunningStack(stores / "data", STRONGROOM_STORES=str(stores / "stores.yaml"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def three(running: RunningStack) -> Stack:
    data = running.data_dir
    return Stack(f"http://127.0.0.1:{running.port}", (data / "admin.key").read_text().strip(), data)


def test_what_the_shared_stack_says_of_its_one_store(stack: Stack) -> None:
    answer = admin(stack, "GET", "/api/v1/stores")
    assert answer.status == 200
    [store] = answer.json["stores"]
    assert (store["name"], store["kind"], store["role"], answer.json["index_problem"]) == (
        "local",
        "local",
        "primary",
        "",
    )
    path = "/api/v1/managers/default/models/no-such/versions/v1?primary_only=true"
    assert_problem(admin(stack, "DELETE", path), 400, "NO_REPLICA")


@pytest.mark.row("S4.4", "S4.5")
def test_upload_replicate_download_and_delete(three: Stack, stores: Path, tmp_path: Path) -> None:
    strongroom = Terminal.of(three)
    source, target = tmp_path / "model.bin", tmp_path / "pulled.bin"
    source.write_bytes(noise(1, 3 * MIB))
    assert strongroom("push", "replicated", source, "--version", "v1").status == 0
    done = strongroom("admin", "sync")
    assert done.status == 0, done.err
    assert [line.partition(":")[0] for line in done.out.splitlines()] == ["main", "east", "west"]
    listed = admin(three, "GET", "/api/v1/stores").json["stores"]
    assert all(store["healthy"] and store["pending_objects"] == 0 for store in listed)
    assert strongroom("pull", "replicated@v1", target, "--from", "west").status == 0
    assert target.read_bytes() == source.read_bytes()
    path = "/api/v1/managers/default/models/replicated/versions/v1"
    assert admin(three, "GET", f"{path}/files/model.bin?provider=east").body == source.read_bytes()
    assert_problem(admin(three, "GET", f"{path}/files/model.bin?provider=mars"), 400, "STORE_UNKNOWN")
    gone = admin(three, "DELETE", f"{path}?primary_only=true")
    assert (gone.status, gone.json["primary_only"]) == (200, True)
    assert not [file for file in (stores / "main" / "packs").rglob("*") if file.is_file()]
    with Client(three.url, api_key=three.admin_key) as client:
        assert client.models.read("replicated", "model.bin") == source.read_bytes()
        assert client.models.delete("replicated", "v1").shredded_chunks > 0
        with pytest.raises(StrongroomError):
            client.models.read("replicated", "model.bin")


@pytest.mark.row("S4.4")
def test_a_tensor_is_read_from_the_store_that_is_named(three: Stack, stores: Path, tmp_path: Path) -> None:
    strongroom = Terminal.of(three)
    source = tmp_path / "model.safetensors"
    source.write_bytes(file_of({"t": entry(0, 4)}, b"abcd"))
    assert strongroom("push", "tensors", source, "--version", "v1").status == 0
    assert strongroom("admin", "sync").status == 0
    pull = ("pull", "tensors@v1", f"{tmp_path}/", "--tensor", "t", "--from")
    assert strongroom(*pull, "west", "--json").json["bytes"] == 4
    unknown = strongroom(*pull, "mars")
    assert (unknown.status, "main, east, west" in unknown.err) == (1, True), (
        "the store that was named was not looked for"
    )
    assert strongroom("rm", "tensors@v1", "--yes").status == 0


@pytest.mark.row("S4.5")
def test_only_who_maintains_the_system_sees_its_stores(three: Stack) -> None:
    strongroom = Terminal.of(three)
    key = strongroom("keys", "create", "reader-of-stores", "--permission-set", "read_only", "--json").json["key"]
    for command in (["stores"], ["sync"], ["rebuild"]):
        refused = Terminal(three.url, key)("admin", *command)
        assert refused.status == 1
        assert "not allowed" in refused.err


@pytest.mark.slow
@pytest.mark.row("S4.5")
def test_the_database_is_lost_and_rebuilt(running: RunningStack, three: Stack, stores: Path, tmp_path: Path) -> None:
    strongroom = Terminal.of(three)
    source, target = tmp_path / "model.bin", tmp_path / "pulled.bin"
    source.write_bytes(noise(2, 2 * MIB))
    assert strongroom("push", "lost", source, "--version", "v1").status == 0
    assert strongroom("admin", "sync").status == 0
    running.stop()
    for file in (running.data_dir / "db").glob("strongroom-models*"):
        file.unlink()
    # The primary's disk is gone as well.
    shutil.rmtree(stores / "main" / "packs")
    running.start()
    assert strongroom("pull", "lost@v1", target).status == 1
    assert "rebuild" in strongroom("admin", "stores").err
    assert strongroom("admin", "gc").status == 1
    done = strongroom("admin", "rebuild")
    assert done.status == 0, done.err
    assert strongroom("pull", "lost@v1", target).status == 0
    assert target.read_bytes() == source.read_bytes()
    assert strongroom("admin", "sync").status == 0
    assert [file for file in (stores / "main" / "packs").rglob("*") if file.is_file()]
    assert strongroom("admin", "gc").status == 0
    with closing(sqlite3.connect(running.data_dir / "db" / "strongroom-models.db")) as database:
        assert database.execute("SELECT created_by FROM versions").fetchall() == [("unknown",)]
