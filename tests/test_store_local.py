"""What is the local store's own: the page cache, reserved space, files for the owner alone, no link is followed.

What it promises as every store does is in test_store_conformance.py.
"""

import mmap
import os
import stat
from pathlib import Path

import pytest

from services.models.stores import local
from services.models.stores.local import LocalStore
from services.models.stores.store import StoreUnavailable

_PAGE = 4096


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "weights")


def _pages(count: int, fill: bytes = b"x") -> memoryview:
    """Memory that O_DIRECT accepts."""
    memory = mmap.mmap(-1, count * _PAGE)
    memory.write(fill * (count * _PAGE))
    return memoryview(memory)


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


def test_space_reserved_ahead_is_given_back(store: LocalStore, tmp_path: Path) -> None:
    with store.create("packs/a") as writer:
        writer.append(_pages(512))
        writer.commit()
    status = (tmp_path / "weights/packs/a").stat()
    assert status.st_size == 2 << 20
    assert status.st_blocks * 512 <= 3 << 20


def test_leftovers_of_a_crash_can_be_found_and_removed(store: LocalStore, tmp_path: Path) -> None:
    writer = store.create("packs/a")
    writer.append(b"lost")
    again = LocalStore(tmp_path / "weights")
    (leftover,) = again.unfinished()
    assert leftover.size == 4
    assert again.discard_unfinished(leftover.key)
    assert not again.discard_unfinished(leftover.key)
    with pytest.raises(StoreUnavailable):
        writer.commit()
    assert not list(again.list())


def test_only_the_owner_may_enter(store: LocalStore, tmp_path: Path) -> None:
    store.put("packs/ab/1", b"x")
    for path in [tmp_path / "weights", *(tmp_path / "weights").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_links_are_not_followed(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (tmp_path / "weights" / "packs").symlink_to(outside)
    (tmp_path / "weights" / "link").symlink_to(outside / "secret")
    for use in (store.read, store.size):
        for key in ("packs/secret", "link"):
            with pytest.raises(StoreUnavailable, match=r"ENOTDIR|ELOOP"):
                use(key)
    with pytest.raises(StoreUnavailable, match="ENOTDIR"):
        store.put("packs/new", b"x")
    assert not list(store.list())
    assert [path.name for path in outside.iterdir()] == ["secret"]
