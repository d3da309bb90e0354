"""Damage to stored bytes, at random places: found before a wrong byte reaches anyone (S0.6)."""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stack import RunningStack, Stack
from tests.uploads import Uploads

MODEL, VERSION = "scorer", "v1"
CONTENT = {
    "weights.bin": random.Random(1).randbytes(6 << 20),
    "config.json": b'{"layers": 12}',
    "empty.txt": b"",
}


@dataclass(frozen=True)
class Stored:
    uploads: Uploads
    files: list[Path]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """One version in a stack of its own, so that every stored file belongs to it."""
    with (
        RunningStack(tmp_path_factory.mktemp("tamper") / "data") as stack,
        grpc.insecure_channel(stack.target) as channel,
    ):
        uploads = Uploads(channel, stack.admin_key)
        uploads.push(MODEL, VERSION, CONTENT)
        files = sorted(path for path in (stack.data_dir / "weights").rglob("*") if path.is_file())
        assert len(files) >= 2, "a pack and a manifest"
        yield Stored(uploads, files)


@contextmanager
def damaged(path: Path, content: bytes | None) -> Iterator[None]:
    """Replaces the file by other bytes, or removes it, for the length of the block."""
    backup = path.with_name(path.name + ".backup")
    shutil.copy2(path, backup)
    try:
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        yield
    finally:
        backup.replace(path)


def read_or_refuse(stored: Stored) -> None:
    """Every file is served exactly as it was pushed, or not at all, and then with a reason."""
    refusals = []
    for path, content in CONTENT.items():
        try:
            read = stored.uploads.read(MODEL, VERSION, path)
        except grpc.RpcError as error:
            refusals.append((error.code(), reason_of(error)))
        else:
            assert read == content
    expected = {(grpc.StatusCode.DATA_LOSS, reason) for reason in ("CHUNK_DAMAGED", "MANIFEST_DAMAGED")}
    assert set(refusals) <= expected


def reason_of(error: grpc.RpcError) -> str:
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


@st.composite
def damage(draw: st.DrawFn) -> tuple[int, str, list[int]]:
    """Which file, what happens to it, and where: positions count in millionths of its length."""
    kind = draw(st.sampled_from(["flip", "zero", "cut", "extend", "swap", "repeat", "remove"]))
    return draw(st.integers(0, 9)), kind, draw(st.lists(st.integers(0, 999_999), min_size=3, max_size=3))


def apply(kind: str, positions: list[int], original: bytes) -> bytes | None:
    size = len(original)
    first, second, third = (position * size // 1_000_000 for position in positions)
    match kind:
        case "flip":
            return original[:first] + bytes([original[first] ^ (1 << third % 8)]) + original[first + 1 :]
        case "zero":
            return original[:first] + bytes(min(4096, size - first)) + original[first + 4096 :]
        case "cut":
            return original[:first]
        case "extend":
            return original + original[first : first + 4096]
        case "swap":
            one, two = sorted((first // 4096 * 4096, second // 4096 * 4096))
            blocks = original[one : one + 4096], original[two : two + 4096]
            return original[:one] + blocks[1] + original[one + 4096 : two] + blocks[0] + original[two + 4096 :]
        case "repeat":
            return original[:first] + original[:first]
        case _:
            return None


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage())
def test_no_damage_goes_unnoticed(stored: Stored, case: tuple[int, str, list[int]]) -> None:
    number, kind, positions = case
    path = stored.files[number % len(stored.files)]
    original = path.read_bytes()
    content = apply(kind, positions, original)
    if content == original:
        return
    with damaged(path, content):
        read_or_refuse(stored)
        report = stored.uploads.verify(MODEL, VERSION)
        assert not report.is_valid
        assert report.problems
    assert stored.uploads.verify(MODEL, VERSION).is_valid


@pytest.mark.slow
def test_files_swapped_with_each_other_are_found(stored: Stored) -> None:
    manifest = next(path for path in stored.files if "manifests" in path.parts)
    pack = next(path for path in stored.files if "packs" in path.parts)
    with damaged(pack, manifest.read_bytes()):
        read_or_refuse(stored)
        assert not stored.uploads.verify(MODEL, VERSION).is_valid


def test_a_manifest_of_another_version_is_not_accepted_in_its_place(stored: Stored) -> None:
    before = set(stored.files)
    stored.uploads.push(MODEL, "v2", {"weights.bin": b"something else"})
    folder = stored.files[0].parents[len(stored.files[0].parts) - stored.files[0].parts.index("weights") - 2]
    other = next(p for p in folder.rglob("*") if p.is_file() and p not in before and "manifests" in p.parts)
    manifest = next(path for path in stored.files if "manifests" in path.parts)
    with damaged(manifest, other.read_bytes()):
        read_or_refuse(stored)
        assert not stored.uploads.verify(MODEL, VERSION).is_valid


def test_nothing_stored_is_plaintext(stored: Stored) -> None:
    for path in stored.files:
        content = path.read_bytes()
        assert b"layers" not in content
        assert b"config.json" not in content
        assert CONTENT["weights.bin"][:64] not in content


def test_files_are_private(stored: Stored, stack: Stack) -> None:
    del stack
    for path in stored.files:
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.parent.stat().st_mode & 0o077 == 0, path.parent
