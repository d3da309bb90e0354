"""Primary and replicas: what is written is copied, what was missed is made up for, reads fall over."""

import shutil
from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest

from strongroom.models.v1 import stores_pb2
from tests.models_installation import Caller, noise, refused
from tests.replicated import Replicated, replicated, wait_for
from tests.serving import ADMINISTRATOR

Code = grpc.StatusCode
MIB = 1 << 20


@pytest.fixture
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    with replicated(tmp_path_factory.mktemp("replicas")) as made:
        yield made


def shown(three: Replicated, name: str) -> stores_pb2.Store:
    [store] = [store for store in three.running.admin.show_stores().stores if store.name == name]
    return store


@pytest.mark.row("S4.5")
def test_what_is_pushed_reaches_every_replica(three: Replicated) -> None:
    content = noise(1, 3 * MIB)
    three.running.admin.push("v1", {"a": content})
    three.synced()
    assert len(three.objects("east")) == 2
    listed = three.running.admin.show_stores().stores
    assert [(store.name, store.kind, store.role, store.healthy) for store in listed] == [
        ("main", "local", "primary", True),
        ("east", "local", "replica", True),
        ("west", "local", "replica", True),
    ]
    wait_for(lambda: all(store.HasField("synced_at") for store in three.running.admin.show_stores().stores))


@pytest.mark.row("S4.5")
@pytest.mark.parametrize("gone", [("main",), ("main", "east")])
def test_reads_fall_over_while_stores_are_down(three: Replicated, gone: tuple[str, ...]) -> None:
    content = noise(2, 3 * MIB)
    three.running.admin.push("v1", {"a": content})
    three.synced()
    if len(gone) == 1:
        with three.down(*gone):
            assert three.running.admin.read("v1", "a") == content
    else:
        with three.down(gone[0]), three.down(gone[1]):
            assert three.running.admin.read("v1", "a") == content


@pytest.mark.row("S4.5")
def test_a_store_that_was_down_gets_what_it_missed(three: Replicated) -> None:
    with three.down("east"):
        three.running.admin.push("v1", {"a": noise(3, 2 * MIB)})
        wait_for(lambda: not shown(three, "west").pending_objects)
        wait_for(lambda: not shown(three, "east").healthy)
        assert shown(three, "east").pending_objects == 2
        assert shown(three, "east").lag_seconds > 0
        assert shown(three, "east").error
    three.running.clock.ahead += timedelta(seconds=60)
    three.synced()
    assert shown(three, "east").healthy


@pytest.mark.row("S4.5")
def test_what_nobody_has_whole_is_not_copied_and_told(three: Replicated) -> None:
    content = noise(4, 2 * MIB)
    three.running.admin.push("v1", {"a": content})
    three.synced()
    wait_for(lambda: all(store.HasField("repaired_at") for store in three.running.admin.show_stores().stores))
    cut = next((three.folder("east") / "packs").rglob("*/*"))
    cut.write_bytes(cut.read_bytes()[:-4096])
    for name in ("main", "west"):
        shutil.rmtree(three.folder(name) / "packs")
    lost = three.objects("main")
    # Nobody has it whole any more: nothing is made worse.
    three.running.admin.sync_stores()
    wait_for(lambda: shown(three, "main").error != "")
    assert three.objects("main") == lost


def test_a_damaged_copy_is_replaced_by_a_sound_one(three: Replicated) -> None:
    three.running.admin.push("v1", {"a": noise(5, 2 * MIB)})
    three.synced()
    before = three.objects("main")
    cut = next((three.folder("main") / "packs").rglob("*/*"))
    cut.write_bytes(cut.read_bytes()[:-4096])
    shutil.rmtree(three.folder("west") / "manifests")
    three.running.admin.sync_stores()
    wait_for(lambda: three.objects("main") == before and three.objects("west") == before)


def test_what_is_deleted_is_deleted_everywhere_also_where_a_store_was_down(three: Replicated) -> None:
    three.running.admin.push("v1", {"a": noise(6, MIB)})
    three.synced()
    with three.down("west"):
        three.running.admin.delete("v1")
        three.running.clock.ahead += timedelta(hours=25)
        three.running.admin.collect()
        assert three.objects("main") == three.objects("east") == {}
    assert len(three.objects("west")) == 2
    three.running.admin.sync_stores()
    three.running.admin.collect()
    assert three.objects("west") == {}
    three.synced()


def test_a_copy_under_way_does_not_bring_back_what_is_deleted(three: Replicated) -> None:
    with three.down("east"):
        three.running.admin.push("v1", {"a": noise(7, MIB)})
        wait_for(lambda: not shown(three, "east").healthy)
        three.running.admin.delete("v1")
    three.running.clock.ahead += timedelta(hours=25)
    three.running.admin.collect()
    three.synced()
    assert three.objects("east") == {}


def test_an_unknown_store_is_refused(three: Replicated) -> None:
    with refused(Code.INVALID_ARGUMENT, "STORE_UNKNOWN"):
        three.running.admin.sync_stores("north")


def test_two_replicas_of_the_service_leave_all_stores_the_same(three: Replicated) -> None:
    with three.running.models():
        three.running.admin.push("v1", {"a": noise(8, 2 * MIB)})
        three.synced()


def damage(three: Replicated, store: str, kind: str = "packs") -> None:
    """Turns over a byte in the middle of every object of the store."""
    for path in [path for path in (three.folder(store) / kind).rglob("*") if path.is_file()]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.row("S4.5")
@pytest.mark.parametrize("kind", ["packs", "manifests"])
def test_a_damaged_copy_is_read_around_and_replaced(three: Replicated, kind: str) -> None:
    content = noise(9, MIB)
    three.running.admin.push("v1", {"a": content})
    three.synced()
    before = three.objects("main")
    damage(three, "main", kind)
    with three.running.models() as address, grpc.insecure_channel(address) as channel:
        # Another process, which has not seen the manifest yet.
        caller = Caller(channel, three.running.tokens, ADMINISTRATOR)
        assert caller.read("v1", "a") == content
        assert caller.get_file("v1", "a")[0] == content
    wait_for(lambda: three.objects("main") == before)
    assert three.running.admin.verify("v1").is_valid


def test_where_all_copies_are_damaged_nothing_is_handed_out(three: Replicated) -> None:
    three.running.admin.push("v1", {"a": noise(10, MIB)})
    three.synced()
    for store in ("main", "east", "west"):
        damage(three, store)
    with refused(Code.DATA_LOSS, "CHUNK_DAMAGED"):
        three.running.admin.read("v1", "a")


@pytest.mark.row("S4.4")
def test_a_download_may_prefer_a_store(three: Replicated) -> None:
    content = noise(11, MIB)
    three.running.admin.push("v1", {"a": content})
    three.synced()
    damage(three, "west")
    assert three.running.admin.read("v1", "a", provider="east") == content
    assert three.running.admin.read("v1", "a", provider="local") == content
    assert three.objects("west") != three.objects("main")
    # It is asked first: that is how its damage is found.
    assert three.running.admin.read("v1", "a", provider="west") == content
    three.synced()
    with three.down("east"):
        assert three.running.admin.read("v1", "a", provider="east") == content
    with refused(Code.INVALID_ARGUMENT, "STORE_UNKNOWN"):
        three.running.admin.read("v1", "a", provider="gcp")


@pytest.mark.row("S4.4")
def test_weights_may_be_deleted_in_the_primary_alone(three: Replicated) -> None:
    own, shared = noise(12, MIB), noise(13, MIB)
    three.running.admin.push("v1", {"own": own})
    three.running.admin.push("v2", {"shared": shared})
    three.running.admin.push("v3", {"shared": shared, "own": own}, model="other")
    three.running.admin.push("v4", {"more": noise(14, MIB)})
    three.synced()
    before = three.objects("east")
    assert three.running.admin.delete("v4", primary_only=True).primary_only
    assert len(before) - len(three.objects("main")) == 2
    # Its chunks are another's as well, who keeps them where they are.
    three.running.admin.delete("v1", primary_only=True)
    assert len(before) - len(three.objects("main")) == 3
    # A repair does not bring it back, nor does a collection take it for garbage.
    three.running.admin.sync_stores()
    wait_for(lambda: not any(store.repairing for store in three.running.admin.show_stores().stores))
    three.running.clock.ahead += timedelta(hours=48)
    three.running.admin.collect()
    assert len(before) - len(three.objects("main")) == 3
    assert three.objects("east") == before
    assert three.running.admin.read("v4", "more") == noise(14, MIB)
    assert three.running.admin.verify("v4").is_valid
    three.running.admin.delete("v4")
    assert len(three.objects("east")) == len(before) - 1


def test_nothing_is_deleted_in_the_primary_that_no_replica_has(three: Replicated) -> None:
    with three.down("east"), three.down("west"):
        three.running.admin.push("v1", {"a": noise(15, MIB)})
        with refused(Code.FAILED_PRECONDITION, "REPLICAS_BEHIND"):
            three.running.admin.delete("v1", primary_only=True)
        assert three.running.admin.read("v1", "a") == noise(15, MIB)


@pytest.mark.row("S4.5")
@pytest.mark.parametrize("gone", ["main", "east"])
def test_a_service_starts_while_a_store_is_down(three: Replicated, gone: str) -> None:
    three.running.admin.push("v1", {"a": noise(16, MIB)})
    three.synced()
    with three.down(gone), three.running.models() as address, grpc.insecure_channel(address) as channel:
        caller = Caller(channel, three.running.tokens, ADMINISTRATOR)
        assert caller.read("v1", "a") == noise(16, MIB)
        if gone == "main":
            with refused(Code.UNAVAILABLE, "STORE_UNAVAILABLE"):
                caller.push("v2", {"a": noise(17, MIB)})
