"""Many small files come in one stream, and go on where it broke."""

import os
from pathlib import Path

import pytest

from strongroom import errors
from strongroom.client import Client
from strongroom.models.v1 import models_pb2, weights_pb2
from strongroom.pull import _groups, _parted, read
from tests.broken_line import broken_line
from tests.stack import Stack

_SIZES = [0, 1, 5000, 3 << 20, 4 << 20, (4 << 20) + 1, 0, 700_000]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for number, size in enumerate(_SIZES):
        (tmp_path / "in" / ("sub" if number % 2 else ".") / f"{number}.bin").write_bytes(os.urandom(size))
    return tmp_path / "in"


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.row("B3")
def test_folder_of_small_and_large_files_comes_whole(stack: Stack, folder: Path, tmp_path: Path) -> None:
    name = f"together-{os.urandom(4).hex()}"
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.models.push(name, folder, version="v1")
        result = client.models.pull(name, tmp_path / "out")
        assert result.bytes_received == sum(_SIZES)
        assert _content(tmp_path / "out") == _content(folder)
        (tmp_path / "out" / "2.bin").write_bytes(b"changed")
        assert client.models.pull(name, tmp_path / "out").bytes_received == 5000
        assert _content(tmp_path / "out") == _content(folder)


@pytest.mark.row("B3")
def test_it_goes_on_when_the_line_breaks(stack: Stack, folder: Path, tmp_path: Path) -> None:
    name = f"together-{os.urandom(4).hex()}"
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.models.push(name, folder, version="v1")
    with (
        broken_line(stack.target, 2 << 20, 5 << 20, 1000) as line,
        Client(line.url, api_key=stack.admin_key, direct=False) as client,
    ):
        client.models.pull(name, tmp_path / "out")
        assert line.broken
    assert _content(tmp_path / "out") == _content(folder)


def test_several_files_have_no_range(stack: Stack, folder: Path) -> None:
    name = f"together-{os.urandom(4).hex()}"
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.models.push(name, folder, version="v1")

        def ask(**fields: object) -> bytes:
            request = weights_pb2.ReadFileRequest(
                manager_id="default", model_name=name, version="v1", path="2.bin", **fields
            )
            return read(client._connection, request)

        assert len(ask(more_paths=["0.bin", "2.bin"])) == 10_000
        for fields in ({"offset": 1}, {"length": 1}, {"tensor": "t"}):
            with pytest.raises(errors.InvalidArgument):
                ask(more_paths=["0.bin"], **fields)
        with pytest.raises(errors.NotFound):
            ask(more_paths=["absent"])
        with pytest.raises(errors.InvalidArgument):
            ask(more_paths=["0.bin"] * 1001)


def test_groups_hold_every_file_once() -> None:
    files = [models_pb2.File(path=str(number), size_bytes=size) for number, size in enumerate(_SIZES * 300)]
    groups = list(_groups(files))
    assert sorted(file.path for group in groups for file in group) == sorted(file.path for file in files)
    assert max(map(len, groups)) <= 500
    assert all(len(group) == 1 for group in groups if group[0].size_bytes > 4 << 20)
    assert list(_groups([])) == []


def test_parts_are_what_their_sizes_say() -> None:
    pieces = [memoryview(b"ab"), memoryview(b"cdefg"), memoryview(b"h")]
    assert list(_parted(iter(pieces), [0, 1, 4, 0, 3, 0])) == [b"", b"a", b"bcde", b"", b"fgh", b""]
