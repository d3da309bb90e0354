"""Packs of which little is left are repacked: the space comes back, and every version stays readable."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.models_installation import Installation, installation, noise
from tests.replicated import replicated

MIB = 1 << 20


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("repack")) as made:
        yield made


def stored_bytes(running: Installation) -> int:
    return sum(path.stat().st_size for path in running.stored("packs"))


def make_sparse(running: Installation) -> bytes:
    """Pushes and deletes so that packs hold little of what they did; returns the file `a` of v2, which remains."""
    kept = noise(1, MIB)
    running.admin.push("v1", {"a": kept, "b": noise(2, 12 * MIB)})
    running.admin.push("v2", {"a": kept})
    running.admin.delete("v1")
    return kept


def test_what_is_left_of_a_sparse_pack_moves(running: Installation) -> None:
    kept = make_sparse(running)
    before = running.stored("packs")
    assert stored_bytes(running) > 12 * MIB
    running.clock.ahead += timedelta(hours=25)
    repacked = running.admin.collect(min_age=None).repacked_packs
    assert 1 <= repacked <= len(before)
    assert running.admin.read("v2", "a") == kept
    assert len(set(before) & set(running.stored("packs"))) == repacked, "who reads an old pack goes on"
    running.clock.ahead += timedelta(hours=25)
    assert running.admin.collect(min_age=None).deleted_packs >= repacked
    assert stored_bytes(running) < 4 * MIB
    assert running.admin.read("v2", "a") == kept
    assert running.admin.verify("v2").is_valid
    assert running.admin.collect().repacked_packs == 0


def test_a_damaged_pack_is_not_repacked(running: Installation) -> None:
    make_sparse(running)
    for path in running.stored("packs"):
        data = path.read_bytes()
        path.write_bytes(data[:4096] + bytes(len(data) - 8192) + data[-4096:])
    before = running.stored("packs")
    assert running.admin.collect().repacked_packs == 0
    assert set() < set(running.stored("packs")) <= set(before)


def test_packs_worth_keeping_stay(running: Installation) -> None:
    running.admin.push("v1", {"a": noise(3, 4 * MIB), "b": noise(4, MIB // 2)})
    running.admin.push("v2", {"a": noise(3, 4 * MIB)})
    running.admin.delete("v1")
    assert running.admin.collect().repacked_packs == 0


def test_repacked_weights_reach_the_replicas(tmp_path_factory: pytest.TempPathFactory) -> None:
    with replicated(tmp_path_factory.mktemp("repack-replicas")) as three:
        kept = make_sparse(three.running)
        three.synced()
        three.running.admin.collect()
        three.synced()
        with three.down("main"):
            assert three.running.admin.read("v2", "a") == kept
        three.running.admin.delete("v2", primary_only=True)
        three.running.admin.sync_stores()
        three.running.clock.ahead += timedelta(hours=25)
        three.running.admin.collect()
        assert three.running.admin.read("v2", "a") == kept
