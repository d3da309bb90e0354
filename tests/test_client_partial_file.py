"""A file grows under a temporary name, for one pull at a time, and gets its place once it is whole."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from strongroom import partial_file
from strongroom.errors import LocalFileError

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_it_grows_and_gets_its_place(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    with partial_file.opened(path, SHA256) as file:
        assert file.resume(len(CONTENT)) == 0
        file.write(memoryview(CONTENT))
        file.digest(memoryview(CONTENT))
        assert (file.size, file.sha256) == (len(CONTENT), SHA256)
        assert not path.exists()
        file.become(path)
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """At a whole block: what is written past the page cache begins at one."""
    path = tmp_path / "w.bin"
    with partial_file.opened(path, SHA256) as file:
        file.write(memoryview(CONTENT[:5000]))
    with partial_file.opened(path, SHA256) as file:
        assert file.resume(len(CONTENT)) == 4096
        file.write(memoryview(CONTENT[4096:]))
        file.digest(memoryview(CONTENT[4096:]))
        assert file.sha256 == SHA256
        file.become(path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [0, 1, 4096, 4 << 20, (4 << 20) + 1, (9 << 20) + 4096])
@pytest.mark.parametrize("folder", ["disk", "memory"])
def test_any_length_through_any_pieces(tmp_path: Path, size: int, folder: str) -> None:
    """Memory's file system has no O_DIRECT on some kernels."""
    data = os.urandom(size)
    base = tmp_path if folder == "disk" else Path(tempfile.mkdtemp(dir="/dev/shm"))
    with partial_file.opened(base / "w.bin", SHA256) as file:
        for start in range(0, size, 777_777):
            file.write(memoryview(data)[start : start + 777_777])
        assert file.size == size
        file.become(base / "w.bin")
    assert (base / "w.bin").read_bytes() == data
    if base != tmp_path:
        shutil.rmtree(base)


def test_what_is_too_long_is_cut(tmp_path: Path) -> None:
    temporary = partial_file.temporary_path(tmp_path / "w.bin", SHA256)
    temporary.write_bytes(CONTENT + b"more")
    with partial_file.opened(tmp_path / "w.bin", SHA256) as file:
        assert file.resume(len(CONTENT)) == len(CONTENT)
        assert file.sha256 == SHA256
    assert temporary.read_bytes() == CONTENT


def test_another_content_is_another_file(tmp_path: Path) -> None:
    paths = {partial_file.temporary_path(tmp_path / name, sha256) for name in ("a", "b") for sha256 in ("1", "2")}
    assert len(paths) == 4


def test_a_long_name_and_a_hostile_digest_make_a_good_name(tmp_path: Path) -> None:
    path = partial_file.temporary_path(tmp_path / ("ü" * 127), "../../etc")
    assert path.parent == tmp_path
    assert len(path.name) < 64


def test_two_pulls_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    code = f"""
from pathlib import Path
from strongroom import partial_file
from strongroom.errors import LocalFileError
try:
    with partial_file.opened(Path({str(path)!r}), {SHA256!r}):
        print("open")
except LocalFileError as error:
    print(error.reason)
"""
    with partial_file.opened(path, SHA256):
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "PULL_RUNNING"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "open"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    partial_file.temporary_path(tmp_path / "w.bin", SHA256).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"), partial_file.opened(tmp_path / "w.bin", SHA256):
        pass
    assert victim.read_text() == "mine"


def test_the_error_says_what_to_do(tmp_path: Path) -> None:
    first = partial_file.opened(tmp_path / "w.bin", SHA256)
    with first, pytest.raises(LocalFileError, match="another process"), partial_file.opened(tmp_path / "w.bin", SHA256):
        pass
