"""`kill -9` of the models service around every step of an upload: afterwards there is no version, or the whole one."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from strongroom.chunking import digest
from strongroom.models.v1 import weights_pb2
from tests.serving import wait_healthy
from tests.stack import RunningStack, Stack
from tests.uploads import Uploads, chunks_of, uploaded_file

MODEL = "scorer"
# Two threads fill a pack of 64 MiB each: after 150 MiB one is full, and the rest is not.
SEVERAL_PACKS = 200 << 20
ONE_PACK = 150 << 20


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of this module's own, whose parts may die."""
    with RunningStack(tmp_path_factory.mktemp("crash") / "data") as stack:
        yield stack


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.Random(7).randbytes(SEVERAL_PACKS)


@pytest.fixture
def uploads(alone: Stack) -> Iterator[Uploads]:
    with grpc.insecure_channel(alone.target) as channel:
        yield Uploads(channel, alone.admin_key)


def kill_models(stack: Stack) -> None:
    """Kills the service without a chance to say goodbye, and waits until the supervisor has replaced it."""
    victim = stack.state["pids"]["models"]
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while stack.state["pids"]["models"] == victim:
        assert time.monotonic() < deadline, "the supervisor did not restart the models service"
        time.sleep(0.02)
    wait_healthy(f"127.0.0.1:{stack.state['ports']['models']}")
    wait_routed(stack)


def wait_routed(stack: Stack) -> None:
    """Returns once the gateway reaches the service again."""
    deadline = time.monotonic() + 60
    with grpc.insecure_channel(stack.target) as channel:
        while True:
            try:
                Uploads(channel, stack.admin_key).exists(MODEL, "none")
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return


def stored_files(stack: Stack) -> list[Path]:
    root = stack.data_dir / "weights"
    files = [path for path in root.rglob("*") if path.is_file()]
    # But the marks of whose index it is.
    return [path for path in files if path.relative_to(root).parts[0] != "index"]


def assert_all_or_nothing(stack: Stack, uploads: Uploads, version: str, content: bytes) -> bool:
    """The version is whole or absent; whatever else the crash left, collection finds. Says whether it is there."""
    there = uploads.exists(MODEL, version)
    if there:
        assert uploads.verify(MODEL, version).is_valid
        assert uploads.read(MODEL, version, "weights.bin") == content
        uploads.delete(MODEL, version)
    # Its upload may be open still, as a client would resume it: here nobody will.
    abandon(uploads, version)
    uploads.collect()
    uploads.collect()
    assert stored_files(stack) == [], "bytes that collection does not find"
    left = uploads.collect(dry_run=True)
    assert not any(value for _, value in left.ListFields()), left
    return there


def abandon(uploads: Uploads, version: str) -> None:
    upload = uploads.create(MODEL, version)
    request = weights_pb2.AbortUploadRequest(manager_id="default", model_name=MODEL, upload_id=upload)
    uploads.weights.AbortUpload(request, metadata=uploads.metadata, timeout=20)


class _PausingChunks:
    """Chunks that stop coming after some bytes, until released."""

    def __init__(self, chunks: list[bytes], pause_after: int) -> None:
        self._chunks = chunks
        self._pause_after = pause_after
        self.release = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        for chunk in self._chunks:
            if sent >= self._pause_after:
                self.release.wait()
                return
            yield chunk
            sent += len(chunk)


def write_until(
    uploads: Uploads, upload: str, content: bytes, pause_after: int
) -> tuple[threading.Thread, _PausingChunks]:
    chunks = _PausingChunks(chunks_of("weights.bin", content), pause_after)

    def write() -> None:
        with pytest.raises(grpc.RpcError):
            uploads.write(MODEL, upload, chunks)

    thread = threading.Thread(target=write)
    thread.start()
    return thread, chunks


def sealed_packs(stack: Stack) -> list[Path]:
    folder = stack.data_dir / "weights" / "packs"
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.002)


def test_killed_before_the_first_pack(alone: Stack, uploads: Uploads, content: bytes) -> None:
    upload = uploads.create(MODEL, "v1")
    thread, chunks = write_until(uploads, upload, content, 8 << 20)
    wait_for(lambda: stored_files(alone), "the first bytes on disk")
    assert sealed_packs(alone) == []
    kill_models(alone)
    chunks.release.set()
    thread.join()
    assert not assert_all_or_nothing(alone, uploads, "v1", content)


def test_killed_between_packs(alone: Stack, uploads: Uploads, content: bytes) -> None:
    upload = uploads.create(MODEL, "v2")
    thread, chunks = write_until(uploads, upload, content, ONE_PACK)
    wait_for(lambda: sealed_packs(alone), "the first pack")
    kill_models(alone)
    chunks.release.set()
    thread.join()
    assert not assert_all_or_nothing(alone, uploads, "v2", content)


@pytest.mark.slow
def test_killed_between_packs_the_upload_resumes(alone: Stack, uploads: Uploads, content: bytes) -> None:
    """What was durable before the crash is not sent again, and the resumed version is whole."""

    from strongroom.models.v1 import weights_pb2

    upload = uploads.create(MODEL, "v3")
    thread, chunks = write_until(uploads, upload, content, ONE_PACK)
    wait_for(lambda: sealed_packs(alone), "the first pack")
    time.sleep(0.5)
    kill_models(alone)
    chunks.release.set()
    thread.join()
    assert uploads.create(MODEL, "v3") == upload
    pieces = chunks_of("weights.bin", content)
    request = weights_pb2.HasChunksRequest(
        manager_id="default", model_name=MODEL, upload_id=upload, digests=b"".join(map(digest, pieces))
    )
    present = uploads.weights.HasChunks(request, metadata=uploads.metadata, timeout=20).present
    assert 0 < sum(present) < len(pieces)
    uploads.write(MODEL, upload, [piece for piece, there in zip(pieces, present, strict=True) if not there])
    uploads.commit(MODEL, upload, [uploaded_file("weights.bin", content)])
    assert assert_all_or_nothing(alone, uploads, "v3", content)


def test_killed_before_the_commit(alone: Stack, uploads: Uploads, content: bytes) -> None:
    upload = uploads.create(MODEL, "v4")
    uploads.write(MODEL, upload, chunks_of("weights.bin", content))
    kill_models(alone)
    assert not assert_all_or_nothing(alone, uploads, "v4", content)


@pytest.mark.parametrize("delay_ms", [0, 3, 6, 12])
def test_killed_at_the_commit(alone: Stack, uploads: Uploads, content: bytes, delay_ms: int) -> None:
    version = f"v5-{delay_ms}"
    small = content[: 20 << 20]
    upload = uploads.create(MODEL, version)
    uploads.write(MODEL, upload, chunks_of("weights.bin", small))
    acknowledged = threading.Event()

    def commit() -> None:
        try:
            uploads.commit(MODEL, upload, [uploaded_file("weights.bin", small)])
            acknowledged.set()
        except grpc.RpcError:
            pass

    thread = threading.Thread(target=commit)
    thread.start()
    time.sleep(delay_ms / 1000)
    kill_models(alone)
    thread.join()
    there = assert_all_or_nothing(alone, uploads, version, small)
    assert there or not acknowledged.is_set(), "an acknowledged version is gone"


def test_killed_when_the_manifest_is_stored_but_not_committed(alone: Stack, uploads: Uploads, content: bytes) -> None:
    small = content[: 20 << 20]
    upload = uploads.create(MODEL, "v6")
    uploads.write(MODEL, upload, chunks_of("weights.bin", small))
    manifests = alone.data_dir / "weights" / "manifests"
    victim = alone.state["pids"]["models"]
    killed = threading.Event()

    def kill_at_manifest() -> None:
        while not killed.is_set():
            if manifests.is_dir() and any(path.is_file() for path in manifests.rglob("*")):
                os.kill(victim, signal.SIGKILL)
                killed.set()

    thread = threading.Thread(target=kill_at_manifest)
    thread.start()
    acknowledged = False
    try:
        uploads.commit(MODEL, upload, [uploaded_file("weights.bin", small)])
        acknowledged = True
    except grpc.RpcError:
        pass
    killed.wait(10)
    thread.join()
    wait_for(lambda: alone.state["pids"]["models"] != victim, "the restarted service")
    wait_healthy(f"127.0.0.1:{alone.state['ports']['models']}")
    wait_routed(alone)
    there = assert_all_or_nothing(alone, uploads, "v6", small)
    assert there or not acknowledged


@pytest.mark.slow
def test_killed_after_the_commit(alone: Stack, uploads: Uploads, content: bytes) -> None:
    uploads.push(MODEL, "v7", {"weights.bin": content})
    kill_models(alone)
    assert assert_all_or_nothing(alone, uploads, "v7", content)
