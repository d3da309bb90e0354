"""The cache of encrypted packs: what is read again is not fetched again, and what it holds says nothing."""

import multiprocessing
import random
from datetime import timedelta
from pathlib import Path

import pytest

from services.models.pack_cache import PackCache
from tests.models_installation import noise
from tests.replicated import replicated

KIB = 1 << 10
MIB = 1 << 20


def key(number: int) -> str:
    return f"packs/aa/{number:032x}"


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


class Source:
    """Objects whose every byte follows from key and place; counts what is fetched."""

    def __init__(self) -> None:
        self.fetched = 0

    def piece(self, number: int, offset: int, length: int) -> bytes:
        self.fetched += 1
        return random.Random(f"{number}-{offset}").randbytes(length)


def test_a_piece_is_fetched_once(tmp_path: Path) -> None:
    cache, source = PackCache(tmp_path / "cache", MIB), Source()
    for _ in range(3):
        read = cache.read(key(1), 4096, 8192, lambda: source.piece(1, 4096, 8192))
        assert read == Source().piece(1, 4096, 8192)
    assert source.fetched == 1
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "cache").rglob("*") if path.is_file()} == {0o600}
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.row("S4.7")
def test_the_least_recently_used_goes_first_and_the_limit_holds(tmp_path: Path) -> None:
    cache, source = PackCache(tmp_path / "cache", 100 * KIB), Source()

    def read(number: int) -> None:
        cache.read(key(number), 0, 10 * KIB, lambda: source.piece(number, 0, 10 * KIB))

    for number in range(9):
        read(number)
    read(0)  # used again, so 1 is the oldest
    for number in range(9, 30):
        read(number)
        read(0)
        assert size_of(tmp_path / "cache") <= 100 * KIB
    assert source.fetched == 30
    read(1)
    assert source.fetched == 31


def test_a_piece_that_changed_on_disk_is_fetched_anew(tmp_path: Path) -> None:
    cache, source = PackCache(tmp_path / "cache", MIB), Source()
    cache.read(key(1), 0, 100, lambda: source.piece(1, 0, 100))
    cache.read(key(2), 0, 100, lambda: source.piece(2, 0, 100))
    one, two = sorted(path for path in (tmp_path / "cache").rglob("*") if path.name == "0-100")
    for change in (b"", one.read_bytes()[:-1], two.read_bytes(), b"\0" * 132):
        one.write_bytes(change)
        assert cache.read(key(1), 0, 100, lambda: source.piece(1, 0, 100)) == Source().piece(1, 0, 100)
    assert source.fetched == 6
    one.unlink()
    one.symlink_to(two)
    assert cache.read(key(1), 0, 100, lambda: source.piece(1, 0, 100)) == Source().piece(1, 0, 100)


def test_a_cache_that_cannot_be_written_costs_no_answer(tmp_path: Path) -> None:
    cache = PackCache(tmp_path / "cache", MIB)
    (tmp_path / "cache" / ".lock").unlink()
    (tmp_path / "cache").rename(tmp_path / "gone")
    assert cache.read(key(1), 0, 3, lambda: b"abc") == b"abc"


def _reader(folder: Path, seed: int) -> None:
    cache, chance = PackCache(folder, 200 * KIB), random.Random(seed)
    for turn in range(400):
        number, offset = chance.randrange(20), chance.randrange(3) * 4096
        read = cache.read(key(number), offset, 4096, lambda: Source().piece(number, offset, 4096))  # noqa: B023
        assert read == Source().piece(number, offset, 4096)
        if turn % 50 == 0:
            cache.drop(key(number))


@pytest.mark.row("S4.7")
def test_processes_share_a_cache(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    fork = multiprocessing.get_context("spawn")
    readers = [fork.Process(target=_reader, args=[folder, seed]) for seed in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0
    assert size_of(folder) <= 200 * KIB
    assert not [path for path in folder.iterdir() if path.name.startswith(".new-")]


@pytest.mark.row("S4.7")
def test_what_was_read_is_served_while_every_store_is_down(tmp_path: Path) -> None:
    content = noise(1, 2 * MIB)
    with replicated(tmp_path, cache={"path": "cache", "max_size_gb": 0.01}) as three:
        three.running.admin.push("v1", {"a": content})
        assert three.running.admin.read("v1", "a") == content
        three.synced()
        kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
        assert len(kept) > len(content)
        assert not any(content[at : at + 32] in kept for at in range(0, len(content), 65536)), "it holds plaintext"
        with three.down("main"), three.down("east"), three.down("west"):
            assert three.running.admin.read("v1", "a") == content
        assert three.running.admin.verify("v1").is_valid
        three.running.admin.delete("v1")
        three.running.clock.ahead += timedelta(hours=25)
        three.running.admin.collect()
        assert not [path for path in (tmp_path / "cache").rglob("*-*") if path.is_file()]
