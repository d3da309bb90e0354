"""A disk that is full or fails: a clear error, no object, nothing left behind, and the next attempt succeeds."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.models.stores.local import LocalStore
from services.models.stores.store import ObjectNotFound, StoreFull, StoreUnavailable

pytestmark = pytest.mark.row("S4.5")

_IN_A_SMALL_FILE_SYSTEM = """
import sys
from pathlib import Path
from services.models.stores.local import LocalStore
from services.models.stores.store import StoreFull

store = LocalStore(Path(sys.argv[1]) / "weights")
store.put("packs/ab/1", b"x" * 1024 * 1024)
for piece in (4096, 1 << 20):
    try:
        with store.create("packs/ab/2") as writer:
            for _ in range(0, 32 << 20, piece):
                writer.append(bytes(piece))
            writer.commit()
    except StoreFull as error:
        assert error.error_reason == "STORE_FULL" and "make room" in error.message, error
    else:
        raise AssertionError("32 MiB went into 20")
    assert not list(store.unfinished())
    assert [each.key for each in store.list()] == ["packs/ab/1"]
assert store.delete("packs/ab/1")
store.put("packs/ab/2", b"y" * 1024 * 1024)
assert store.read("packs/ab/2") == b"y" * 1024 * 1024
"""


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_file_system_is_a_full_store(tmp_path: Path) -> None:
    # A user namespace lets an ordinary user mount one; some systems forbid it.
    mount = 'mount -t tmpfs -o size=20m none "$0" && exec "$@"'
    private = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        subprocess.run([*private, mount, tmp_path, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets nobody mount a file system of their own")
    script = [sys.executable, "-c", _IN_A_SMALL_FILE_SYSTEM, tmp_path]
    done = subprocess.run([*private, mount, tmp_path, *script], cwd=Path.cwd(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", [1 << 20, 64 << 10], ids=["reserved", "written"])
def test_file_that_may_not_grow_is_a_full_store(tmp_path: Path, size: int) -> None:
    store = LocalStore(tmp_path / "weights")
    with _files_of_at_most(size // 2), pytest.raises(StoreFull, match="make room"):
        store.put("packs/ab/1", bytes(size))
    assert not list(store.unfinished())
    assert not list(store.list())
    store.put("packs/ab/1", bytes(size))
    assert store.size("packs/ab/1") == size


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE])
@pytest.mark.parametrize("call", ["pwrite", "fsync", "link"])
def test_failing_disk_is_an_unavailable_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    store = LocalStore(tmp_path / "weights")

    def fail(*args: object, **more: object) -> None:
        raise OSError(number, os.strerror(number), "/a/path/of/the/machine")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StoreUnavailable, match=errno.errorcode[number]) as caught:
            store.put("packs/ab/1", b"x")
    assert "/a/path" not in caught.value.message
    with pytest.raises(ObjectNotFound):
        store.read("packs/ab/1")
    assert not list(store.unfinished())
    store.put("packs/ab/1", b"x")


def test_failing_disk_is_no_missing_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path / "weights")
    store.put("packs/ab/1", b"x")

    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StoreUnavailable, match="EIO"):
        store.read("packs/ab/1")
    monkeypatch.undo()
    # Not mounted: the folder of the store is gone, not the objects.
    (tmp_path / "weights").rename(tmp_path / "elsewhere")
    for use in (store.read, store.size, store.delete):
        with pytest.raises(StoreUnavailable):
            use("packs/ab/1")
    with pytest.raises(StoreUnavailable):
        list(store.list("packs/"))
    with pytest.raises(StoreUnavailable):
        store.discard_unfinished("abc")
    (tmp_path / "elsewhere").rename(tmp_path / "weights")
    assert store.read("packs/ab/1") == b"x"
