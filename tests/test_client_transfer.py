"""Push and pull through the running gateway: what comes back is what was pushed, whatever happens in between."""

import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from strongroom import Client, partial_file
from strongroom.errors import AlreadyExists, LocalFileError, NotFound, Unavailable
from strongroom.models.v1 import models_pb2
from strongroom.push import PushProgress
from tests.broken_line import broken_line
from tests.stack import Stack, free_port
from tests.uploads import Uploads

MIB = 1 << 20


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url, api_key=stack.admin_key) as client:
        yield client


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """A name of the test's own."""
    return request.node.name.replace("[", "-").replace("]", "")


def content(size: int, seed: int | str = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [0, 1, 1000, 3 * MIB, 40 * MIB + 17])
def test_a_file_comes_back(client: Client, model: str, tmp_path: Path, size: int) -> None:
    source = write(tmp_path / "w.bin", content(size, model))
    pushed = client.models.push(model, source, version="v1")
    assert pushed.version.size_bytes == size
    assert pushed.version.files[0].sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert pushed.bytes_sent == size
    pulled = client.models.pull(model, tmp_path / "copy.bin")
    assert pulled.paths == [tmp_path / "copy.bin"]
    assert (tmp_path / "copy.bin").read_bytes() == source.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"w.bin", "copy.bin"}


def test_a_folder_comes_back(client: Client, model: str, tmp_path: Path) -> None:
    files = {f"part{number}/weights-{number}.bin": content(50_000, number) for number in range(60)}
    files |= {"empty": b"", "ünïcode/模型 v1.bin": b"named", "back\\slash": b"1", "new\nline": b"2", ".hidden": b"3"}
    files["same-as-part1.bin"] = files["part1/weights-1.bin"]
    for name, data in files.items():
        write(tmp_path / "in" / name, data)
    client.models.push(model, tmp_path / "in", version="v1")
    client.models.pull(model, tmp_path / "out", version="v1")
    assert files_below(tmp_path / "out") == files


def test_a_safetensors_model_comes_back_and_a_changed_copy_is_mostly_there(
    client: Client, model: str, tmp_path: Path
) -> None:
    numbers = np.random.default_rng(5)
    tensors = {f"layer{i}": numbers.standard_normal((512, 1024), dtype=np.float32) for i in range(10)}
    save_file(tensors, tmp_path / "model.safetensors")
    client.models.push(model, tmp_path / "model.safetensors", version="v1")
    tensors["layer3"] = numbers.standard_normal((512, 1024), dtype=np.float32)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"note": "a longer header"})
    pushed = client.models.push(model, tmp_path / "model.safetensors", version="v2")
    assert 2 * MIB <= pushed.bytes_sent <= 3 * MIB
    client.models.pull(model, tmp_path / "copy.safetensors", version="v2")
    copy = load_file(tmp_path / "copy.safetensors")
    assert all((copy[name] == tensor).all() for name, tensor in tensors.items())


def test_the_same_content_is_not_sent_again(client: Client, model: str, tmp_path: Path) -> None:
    source = write(tmp_path / "w.bin", content(5 * MIB, model))
    assert client.models.plan_push(model, source) == PushProgress(total=5 * MIB, done=0, sent=0)
    client.models.push(model, source, version="v1")
    assert client.models.plan_push(model, source) == PushProgress(total=5 * MIB, done=5 * MIB, sent=0)
    assert client.models.push(model, source, version="v2").bytes_sent == 0
    with pytest.raises(AlreadyExists) as caught:
        client.models.push(model, source, version="v2")
    assert caught.value.reason == "VERSION_EXISTS"


def test_a_version_without_a_name_is_named_after_the_time(client: Client, model: str, tmp_path: Path) -> None:
    pushed = client.models.push(model, write(tmp_path / "w.bin", content(10, model)))
    assert len(pushed.version.version) == len("20250811T142530Z")


def test_progress_ends_at_the_total(client: Client, model: str, tmp_path: Path) -> None:
    source = write(tmp_path / "w.bin", content(9 * MIB, model))
    seen: list[tuple[int, int]] = []
    client.models.push(model, source, version="v1", progress=lambda p: seen.append((p.done, p.sent)))
    assert seen == sorted(seen)
    assert seen[-1] == (9 * MIB, 9 * MIB)
    seen.clear()
    client.models.pull(model, tmp_path / "copy", progress=lambda p: seen.append((p.done, p.received)))
    assert seen == sorted(seen)
    assert seen[-1] == (9 * MIB, 9 * MIB)


def test_a_push_survives_broken_connections(stack: Stack, model: str, tmp_path: Path) -> None:
    source = write(tmp_path / "w.bin", content(60 * MIB, model))
    with (
        broken_line(stack.target, 5 * MIB, 30 * MIB, 1000) as line,
        Client(line.url, api_key=stack.admin_key, direct=False) as client,
    ):
        pushed = client.models.push(model, source, version="v1")
        assert line.broken == 3
        assert pushed.version.files[0].sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
        assert client.models.verify(model, "v1").is_valid


def test_a_pull_survives_broken_connections(stack: Stack, client: Client, model: str, tmp_path: Path) -> None:
    source = write(tmp_path / "w.bin", content(60 * MIB, model))
    client.models.push(model, source, version="v1")
    with (
        broken_line(stack.target, 5 * MIB, 30 * MIB, 1000) as line,
        Client(line.url, api_key=stack.admin_key, direct=False) as through,
    ):
        pulled = through.models.pull(model, tmp_path / "copy")
        assert line.broken == 3
        # Without going on it would be 95 MiB; what was in flight at a break is lost.
        assert line.carried < 90 * MIB, "what was there already came again"
    assert pulled.bytes_received == 60 * MIB
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_a_pull_goes_on_where_it_was(client: Client, model: str, tmp_path: Path) -> None:
    data = content(10 * MIB, model)
    version = client.models.push(model, write(tmp_path / "w.bin", data), version="v1").version
    write(partial_file.temporary_path(tmp_path / "copy", version.files[0].sha256), data[: 7 * MIB])
    assert client.models.pull(model, tmp_path / "copy").bytes_received == 3 * MIB
    assert (tmp_path / "copy").read_bytes() == data
    assert client.models.pull(model, tmp_path / "copy").bytes_received == 0


@pytest.mark.parametrize("left", [4 * MIB, 10 * MIB])
def test_a_damaged_partial_file_is_noticed(client: Client, model: str, tmp_path: Path, left: int) -> None:
    """A crash can leave zeros where data was written and never reached the disk."""
    data = content(10 * MIB, model)
    version = client.models.push(model, write(tmp_path / "w.bin", data), version="v1").version
    write(partial_file.temporary_path(tmp_path / "copy", version.files[0].sha256), data[: left - MIB] + bytes(MIB))
    client.models.pull(model, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


def test_an_older_file_is_replaced(client: Client, model: str, tmp_path: Path) -> None:
    data = content(MIB, model)
    client.models.push(model, write(tmp_path / "w.bin", data), version="v1")
    write(tmp_path / "copy", b"older")
    client.models.pull(model, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


def test_a_file_that_changes_meanwhile_is_no_version(client: Client, model: str, tmp_path: Path) -> None:
    source = write(tmp_path / "w.bin", content(5 * MIB, model))

    def change(_progress: PushProgress) -> None:
        with source.open("ab") as file:
            file.write(b"more")

    with pytest.raises(LocalFileError) as caught:
        client.models.push(model, source, version="v1", progress=change)
    assert caught.value.reason == "SOURCE_CHANGED"
    with pytest.raises(NotFound):
        client.models.show(model, "v1")


def test_a_push_whose_upload_is_gone_opens_another(client: Client, model: str, stack: Stack, tmp_path: Path) -> None:
    """As one that slept longer than an upload lives."""
    source = write(tmp_path / "w.bin", content(40 * MIB, model))
    gone: list[str] = []

    def give_up(_progress: PushProgress) -> None:
        if not gone:
            with grpc.insecure_channel(stack.target) as channel:
                uploads = Uploads(channel, stack.admin_key)
                gone.append(uploads.create(model, "v1"))
                uploads.abort(model, gone[0])

    pushed = client.models.push(model, source, version="v1", progress=give_up)
    assert gone
    assert pushed.version.files[0].sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert client.models.verify(model, "v1").is_valid


@pytest.mark.parametrize("known", [True, False])
def test_of_two_pushes_of_one_version_one_wins(client: Client, model: str, tmp_path: Path, known: bool) -> None:
    """They share an upload, which is how a push resumes. Whoever is second must not believe it won."""
    first, second = (write(tmp_path / f"{name}.bin", content(3 * MIB, model + name)) for name in ("first", "second"))
    if known:
        client.models.push(model, second, version="v0")

    def overtake(_progress: PushProgress) -> None:
        if not winner:
            winner.append(client.models.push(model, first, version="v1").version)

    winner: list[models_pb2.Version] = []
    with pytest.raises(AlreadyExists) as caught:
        client.models.push(model, second, version="v1", progress=overtake)
    assert caught.value.reason == "VERSION_EXISTS"
    assert client.models.show(model, "v1") == winner[0]


def test_several_pull_into_one_folder(stack: Stack, client: Client, model: str, tmp_path: Path) -> None:
    """One of them pulls each file; the others hear of it or find it there."""
    for number in range(8):
        write(tmp_path / "in" / f"{number}.bin", content(MIB, f"{model}{number}"))
    client.models.push(model, tmp_path / "in", version="v1")

    def pull() -> None:
        try:
            client.models.pull(model, tmp_path / "out")
        except LocalFileError as error:
            reasons.add(error.reason)

    reasons: set[str] = set()
    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reasons <= {"PULL_RUNNING"}
    client.models.pull(model, tmp_path / "out")
    assert files_below(tmp_path / "out") == files_below(tmp_path / "in")


def test_a_range_is_read(client: Client, model: str, tmp_path: Path) -> None:
    data = content(6 * MIB, model)
    client.models.push(model, write(tmp_path / "w.bin", data), version="v1")
    assert client.models.read(model, "w.bin", offset=5 * MIB - 3, length=10) == data[5 * MIB - 3 : 5 * MIB + 7]
    assert client.models.read(model, "w.bin") == data


def test_nobody_there_is_said_soon() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", api_key="sr_x") as client, pytest.raises(Unavailable):
        client.models.push("m", __file__)
