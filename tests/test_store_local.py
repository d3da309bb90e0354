"""The local store: an object is whole and durable or it is not there, and no key leads out of the folder."""

import mmap
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.models.stores import local
from services.models.stores.local import LocalStore
from services.models.stores.store import ObjectExists, ObjectNotFound, StoredObject

_PAGE = 4096


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "weights")


def _pages(count: int, fill: bytes = b"x") -> memoryview:
    """Memory that O_DIRECT accepts."""
    memory = mmap.mmap(-1, count * _PAGE)
    memory.write(fill * (count * _PAGE))
    return memoryview(memory)


def _keys(found: Iterator[StoredObject]) -> list[str]:
    return sorted(each.key for each in found)


def test_object_reads_back_whole_and_in_ranges(store: LocalStore) -> None:
    store.put("manifests/one", b"0123456789")
    assert store.size("manifests/one") == 10
    assert store.read("manifests/one") == b"0123456789"
    assert store.read("manifests/one", 3, 4) == b"3456"
    assert store.read("manifests/one", 8, 100) == b"89"
    assert store.read("manifests/one", 100, 5) == b""


@pytest.mark.parametrize("lengths", [[1], [4096, 4096], [4096, 5], [5, 4096], [0], [2 << 20, 4096]])
def test_pieces_of_any_length_are_joined(store: LocalStore, lengths: list[int]) -> None:
    with store.create("packs/a") as writer:
        for number, length in enumerate(lengths):
            writer.append(bytes([number]) * length)
        writer.commit()
    assert store.read("packs/a") == b"".join(bytes([number]) * length for number, length in enumerate(lengths))


def test_aligned_memory_is_written_past_the_page_cache_where_possible(store: LocalStore) -> None:
    with store.create("packs/a") as writer:
        for fill in (b"a", b"b"):
            writer.append(_pages(512, fill))
        writer.commit()
    assert store.read("packs/a") == b"a" * (2 << 20) + b"b" * (2 << 20)


def test_file_system_without_direct_writes_is_written_through_the_cache(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, reserved = os.open, []

    def without_direct(path: str, flags: int, *args: int, **more: int) -> int:
        descriptor = opened(path, flags & ~os.O_DIRECT, *args, **more)
        if flags & os.O_DIRECT:
            os.close(descriptor)  # as some kernels do: the name is made, then the flag is refused
            raise OSError(local.errno.EINVAL, "Invalid argument")
        return descriptor

    def cannot_reserve(*args: int) -> None:
        reserved.append(args)
        raise OSError(local.errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "open", without_direct)
    monkeypatch.setattr(os, "posix_fallocate", cannot_reserve)
    with store.create("packs/a") as writer:
        writer.append(_pages(256))
        writer.commit()
    assert store.size("packs/a") == 1 << 20
    assert reserved
    assert not list(store.unfinished())


def test_object_is_unseen_until_committed(store: LocalStore) -> None:
    with store.create("packs/a") as writer:
        writer.append(b"half")
        assert not list(store.list())
        assert len(list(store.unfinished())) == 1
        with pytest.raises(ObjectNotFound):
            store.read("packs/a")
    assert not list(store.list())
    assert not list(store.unfinished())


def test_space_reserved_ahead_is_given_back(store: LocalStore, tmp_path: Path) -> None:
    with store.create("packs/a") as writer:
        writer.append(_pages(512))
        writer.commit()
    status = (tmp_path / "weights/packs/a").stat()
    assert status.st_size == 2 << 20
    assert status.st_blocks * 512 <= 3 << 20


def test_object_never_changes(store: LocalStore) -> None:
    store.put("manifests/a", b"first")
    with pytest.raises(ObjectExists):
        store.put("manifests/a", b"second")
    assert store.read("manifests/a") == b"first"
    assert not list(store.unfinished())


def test_one_of_many_writers_wins(store: LocalStore) -> None:
    start, won = threading.Barrier(8), []

    def compete(number: int) -> None:
        start.wait()
        try:
            store.put("aliases/champion", str(number).encode())
        except ObjectExists:
            return
        won.append(str(number).encode())

    threads = [threading.Thread(target=compete, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.read("aliases/champion")]
    assert not list(store.unfinished())


def test_closed_writer_refuses(store: LocalStore) -> None:
    with store.create("packs/a") as writer:
        writer.commit()
        with pytest.raises(ValueError, match="closed"):
            writer.append(b"more")
        with pytest.raises(ValueError, match="closed"):
            writer.commit()
        writer.discard()
    assert store.size("packs/a") == 0


def test_listing_goes_below_a_folder(store: LocalStore) -> None:
    for key in ("packs/ab/1", "packs/ab/2", "packs/cd/3", "manifests/4"):
        store.put(key, key.encode())
    assert _keys(store.list()) == ["manifests/4", "packs/ab/1", "packs/ab/2", "packs/cd/3"]
    assert _keys(store.list("packs/")) == ["packs/ab/1", "packs/ab/2", "packs/cd/3"]
    assert _keys(store.list("packs/ab/")) == ["packs/ab/1", "packs/ab/2"]
    assert _keys(store.list("nothing/")) == []
    (found,) = store.list("manifests/")
    assert found.size == 11
    assert found.modified > 1e9
    with pytest.raises(ValueError, match="folder"):
        list(store.list("pack"))


def test_deleting_says_whether_there_was_one(store: LocalStore) -> None:
    store.put("packs/ab/1", b"x")
    assert store.delete("packs/ab/1")
    assert not store.delete("packs/ab/1")
    assert not store.delete("packs/zz/1")
    for absent in (lambda: store.read("packs/ab/1"), lambda: store.size("packs/ab/1"), lambda: store.size("no/folder")):
        with pytest.raises(ObjectNotFound):
            absent()


def test_leftovers_of_a_crash_can_be_found_and_removed(store: LocalStore, tmp_path: Path) -> None:
    writer = store.create("packs/a")
    writer.append(b"lost")
    again = LocalStore(tmp_path / "weights")
    (leftover,) = again.unfinished()
    assert leftover.size == 4
    assert again.discard_unfinished(leftover.key)
    assert not again.discard_unfinished(leftover.key)
    with pytest.raises(FileNotFoundError):
        writer.commit()
    assert not list(again.list())


def test_only_the_owner_may_enter(store: LocalStore, tmp_path: Path) -> None:
    store.put("packs/ab/1", b"x")
    for path in [tmp_path / "weights", *(tmp_path / "weights").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


_IMPOSSIBLE = [
    "",
    "/",
    "/etc/passwd",
    "../up",
    "packs/../../up",
    "packs/./a",
    "packs//a",
    "a/",
    ".tmp/a",
    "a\0b",
    "a\n",
]
_IMPOSSIBLE += ["ä", "-a", "a b", "a\\b", "x" * 129, ".."]


@pytest.mark.parametrize("key", _IMPOSSIBLE)
def test_impossible_key_is_refused(store: LocalStore, key: str) -> None:
    for use in (
        store.create,
        store.read,
        store.size,
        store.delete,
        store.discard_unfinished,
        lambda key: store.put(key, b""),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 the message has no part of the key
            use(key)


def test_links_are_not_followed(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (tmp_path / "weights" / "packs").symlink_to(outside)
    (tmp_path / "weights" / "link").symlink_to(outside / "secret")
    for use in (store.read, store.size):
        for key in ("packs/secret", "link"):
            with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
                use(key)
    with pytest.raises(OSError, match="Not a directory"):
        store.put("packs/new", b"x")
    assert not list(store.list())
    assert [path.name for path in outside.iterdir()] == ["secret"]
