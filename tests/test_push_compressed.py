"""Compression end to end: less is stored, the bytes come back, equal chunks are the same at any level."""

import os
import urllib.request
from pathlib import Path

import pytest

from strongroom.client import Client
from tests.stack import Stack
from tests.terminal import Terminal


@pytest.mark.row("B1")
def test_compressed_push_comes_back_and_dedups_with_one_that_is_not(stack: Stack, tmp_path: Path) -> None:
    unit = os.urandom(1 << 16).hex().encode()
    content = b"".join(unit + str(number).encode() for number in range(100))
    (tmp_path / "w.bin").write_bytes(content)
    name = f"zstd-{os.urandom(4).hex()}"
    with Client(stack.url, api_key=stack.admin_key) as client:
        assert client.models.push(name, tmp_path / "w.bin", version="v1", compression_level=3).bytes_sent == len(
            content
        )
        assert client.models.push(name, tmp_path / "w.bin", version="v2").bytes_sent == 0
        for version in ("v1", "v2"):
            client.models.pull(name, tmp_path / version, version=version)
            assert (tmp_path / version).read_bytes() == content
            assert client.models.verify(name, version).is_valid
        assert client.models.read(name, "w.bin", offset=700_000, length=9) == content[700_000:700_009]


@pytest.mark.row("B1")
def test_level_of_the_command_line_and_of_rest(stack: Stack, tmp_path: Path) -> None:
    content = b"0123456789abcdef" * (1 << 17)
    (tmp_path / "w.bin").write_bytes(content)
    name = f"zstd-{os.urandom(4).hex()}"
    strongroom = Terminal.of(stack)
    assert strongroom("push", name, tmp_path / "w.bin", "--version", "v1", "--compression-level", "9").status == 0
    assert strongroom("push", name, tmp_path / "w.bin", "--compression-level", "10").status == 2
    url = f"{stack.url}/api/v1/managers/default/models/{name}/versions/v2/files/w.bin?compression_level=9"
    put = urllib.request.Request(url, content, {"x-api-key": stack.admin_key}, method="PUT")  # noqa: S310
    with urllib.request.urlopen(put, timeout=30) as answer:  # noqa: S310
        assert answer.status == 201
    for version in ("v1", "v2"):
        assert strongroom("pull", f"{name}@{version}", tmp_path / version).status == 0
        assert (tmp_path / version).read_bytes() == content
