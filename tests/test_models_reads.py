"""Reads: whole files and ranges, over both services, and damage."""

import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from services.models import packs
from strongroom.models.v1 import files_pb2, models_pb2
from tests.models_installation import (
    MODEL,
    Installation,
    installation,
    noise,
    principal,
    put_messages,
    refused,
)
from tests.uploads import chunks_of, uploaded_file

Code = grpc.StatusCode
CONTENT = noise(1, 9 << 20)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("reads")) as made:
        made.admin.push("v1", {"weights.bin": CONTENT, "empty": b""})
        yield made


SIZE = len(CONTENT)
EDGE = len(chunks_of("weights.bin", CONTENT)[0])


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 0),
        (0, 1),
        (0, SIZE),
        (0, SIZE + 5),
        (EDGE - 1, 2),
        (EDGE, 1),
        (EDGE - 1, 1),
        (5, 3 << 20),
        (SIZE - 1, 1),
        (SIZE - 1, 9),
        (SIZE, 0),
        (SIZE, 7),
        (1 << 20, None),
    ],
)
def test_a_range_is_exact(running: Installation, offset: int, length: int | None) -> None:
    expected = CONTENT[offset:] if length is None else CONTENT[offset : offset + length]
    span = {"offset": offset} if length is None else {"offset": offset, "length": length}
    assert running.admin.read("v1", "weights.bin", **span) == expected
    assert running.admin.get_file("v1", "weights.bin", **span) == (
        expected,
        "application/octet-stream",
        str(len(expected)),
    )


def test_messages_are_of_a_size_the_gateway_takes(running: Installation) -> None:
    request = files_pb2.GetFileRequest(manager_id="default", model_name=MODEL, version="v1", path="weights.bin")
    sizes = [len(message.data) for message in running.admin.call(running.admin.files.GetFile, request)]
    assert sizes == [1 << 20] * 9


def test_an_empty_file_is_one_empty_message(running: Installation) -> None:
    assert running.admin.read("v1", "empty") == b""
    assert running.admin.get_file("v1", "empty") == (b"", "application/octet-stream", "0")


def test_beyond_the_end_is_out_of_range(running: Installation) -> None:
    with refused(Code.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"):
        running.admin.read("v1", "weights.bin", offset=SIZE + 1)
    with refused(Code.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"):
        running.admin.get_file("v1", "weights.bin", offset=SIZE + 1)


def test_what_is_not_there_is_named(running: Installation) -> None:
    with refused(Code.NOT_FOUND, "FILE_NOT_FOUND"):
        running.admin.read("v1", "weights")
    with refused(Code.NOT_FOUND, "VERSION_NOT_FOUND"):
        running.admin.read("v0", "weights.bin")
    with refused(Code.NOT_FOUND, "MODEL_NOT_FOUND"):
        running.admin.read("v1", "weights.bin", model="nothing")


def test_latest_is_the_newest(running: Installation) -> None:
    running.admin.push("z", {"a": b"one"}, model="ordered")
    running.admin.push("a", {"a": b"two"}, model="ordered")
    assert running.admin.read("latest", "a", model="ordered") == b"two"
    assert running.admin.show("latest", model="ordered").version == "a"


def test_a_slow_reader_that_leaves_harms_nobody(running: Installation) -> None:
    request = files_pb2.GetFileRequest(manager_id="default", model_name=MODEL, version="v1", path="weights.bin")
    answers = running.admin.call(running.admin.files.GetFile, request)
    next(answers)
    answers.cancel()
    deadline = time.monotonic() + 60
    while any(thread.name == "read-ahead" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the reader's thread lives on"
        time.sleep(0.01)
    assert running.admin.read("v1", "weights.bin") == CONTENT


def test_damage_is_found_before_a_wrong_byte_is_sent(running: Installation) -> None:
    running.admin.push("hurt", {"a": noise(2, 2 << 20)}, model="hurt")
    pack = max(running.stored("packs"), key=lambda path: path.stat().st_mtime_ns)
    original = pack.read_bytes()
    pack.write_bytes(original[:5000] + bytes([original[5000] ^ 1]) + original[5001:])
    with refused(Code.DATA_LOSS, "CHUNK_DAMAGED"):
        running.admin.read("hurt", "a", model="hurt")
    report = running.admin.verify("hurt", model="hurt")
    assert (report.is_valid, report.files_checked) == (False, 1)
    assert any("a: " in problem for problem in report.problems)
    pack.unlink()
    with refused(Code.DATA_LOSS, "CHUNK_DAMAGED"):
        running.admin.read("hurt", "a", model="hurt")
    assert not running.admin.verify("hurt", model="hurt").is_valid
    pack.write_bytes(original)
    assert running.admin.verify("hurt", model="hurt").is_valid
    for manifest in running.stored("manifests"):
        manifest.write_bytes(manifest.read_bytes() + b"x")
    report = running.admin.verify("hurt", model="hurt")
    assert report.problems == ["The manifest is damaged: restore it from a copy."]
    for manifest in running.stored("manifests"):
        manifest.write_bytes(manifest.read_bytes()[:-1])


def test_verifying_settles_a_claimed_sha256(running: Installation) -> None:
    running.admin.push("claimed", {"a": b"abc", "b": b""})
    assert not any(file.sha256_verified for file in running.admin.show("claimed").files)
    report = running.admin.verify("claimed")
    assert (report.is_valid, report.files_checked, report.bytes_checked) == (True, 2, 3)
    assert all(file.sha256_verified for file in running.admin.show("claimed").files)


def test_a_version_deleted_while_it_is_verified_is_not_found_rather_than_damaged(
    running: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.admin.push("leaving", {"a": noise(7, 3 << 20)}, model="leaving")
    read_blob = packs.read_blob

    def deleted_meanwhile(*args: Any) -> memoryview:
        monkeypatch.undo()
        running.admin.delete("leaving", model="leaving")
        running.admin.collect()
        return read_blob(*args)

    monkeypatch.setattr(packs, "read_blob", deleted_meanwhile)
    with refused(Code.NOT_FOUND, "VERSION_NOT_FOUND"):
        running.admin.verify("leaving", model="leaving")


def test_a_false_sha256_is_a_problem(running: Installation) -> None:
    upload = running.admin.create("false").upload_id
    running.admin.write(upload, [b"abc"])
    file = uploaded_file("a", b"abc")
    file.sha256 = hashlib.sha256(b"another").digest()
    running.admin.commit(upload, [file])
    report = running.admin.verify("false")
    assert not report.is_valid
    assert file.sha256.hex() in report.problems[0]
    assert not running.admin.show("false").files[0].sha256_verified


@pytest.mark.parametrize("size", [1, 7_001, 65_536, 1 << 20])
def test_a_file_put_in_pieces_of_any_size_is_stored_whole(running: Installation, size: int) -> None:
    content = CONTENT[: 20_000 if size == 1 else 3_000_017]
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    version = running.admin.put(f"put-{size}", "dir/w.bin", pieces)
    [file] = version.files
    assert (file.path, file.size_bytes) == ("dir/w.bin", len(content))
    assert (file.sha256, file.sha256_verified) == (hashlib.sha256(content).hexdigest(), True)
    assert running.admin.read(f"put-{size}", "dir/w.bin") == content


def test_a_put_file_has_the_chunks_of_a_pushed_one(running: Installation) -> None:
    running.admin.put("as-put", "weights.bin", [CONTENT])
    upload = running.admin.create("as-pushed").upload_id
    chunks = chunks_of("weights.bin", CONTENT)
    assert running.admin.has(upload, chunks) == [1] * len(chunks)


def test_an_empty_file_can_be_put(running: Installation) -> None:
    assert running.admin.put("put-empty", "a", []).files[0].size_bytes == 0
    assert running.admin.read("put-empty", "a") == b""


def test_a_created_file_is_a_201(running: Installation) -> None:
    admin = running.admin
    _, call = admin.files.PutFile.with_call(put_messages("hint", "a", [b"x"]), metadata=admin.metadata, timeout=30)
    assert ("x-http-code", "201") in [(key, value) for key, value in call.initial_metadata()]


@pytest.mark.parametrize("sent", [0, 1, 5 << 20])
def test_a_client_that_goes_away_leaves_no_version(running: Installation, sent: int) -> None:
    gone = threading.Event()
    taken = threading.Event()

    def pieces() -> Iterator[bytes]:
        for start in range(0, sent, 1 << 20):
            yield CONTENT[start : min(sent, start + (1 << 20))]
        taken.set()
        gone.wait(30)

    admin = running.admin
    version = f"gone-{sent}"
    call = admin.files.PutFile.future(put_messages(version, "a", pieces()), metadata=admin.metadata, timeout=30)
    taken.wait(30)
    time.sleep(0.2)
    call.cancel()
    gone.set()
    time.sleep(0.5)
    with refused(Code.NOT_FOUND, "VERSION_NOT_FOUND"):
        admin.show(version)
    assert admin.put(version, "a", [b"again"]).version == version


def test_a_connection_that_breaks_leaves_no_version(running: Installation) -> None:
    address = running.address
    for attempt in range(5):
        taken = threading.Event()
        channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        caller = type(running.admin)(channel, running.tokens, running.admin.principal)

        def pieces(taken: threading.Event = taken) -> Iterator[bytes]:
            yield b"half"
            taken.set()
            time.sleep(1)

        call = caller.files.PutFile.future(
            put_messages(f"broken-{attempt}", "a", pieces()), metadata=caller.metadata, timeout=30
        )
        taken.wait(10)
        time.sleep(0.1)
        channel.close()
        call.exception()
    time.sleep(0.5)
    versions = {version.version for version in running.admin.list_versions(page_size=1000).versions}
    assert not any(version.startswith("broken") for version in versions)


def test_only_the_first_message_of_a_file_names_anything(running: Installation) -> None:
    def messages() -> Iterator[files_pb2.PutFileRequest]:
        yield from put_messages("named-twice", "a", [b"x"])
        yield from put_messages("named-twice", "b", [b"y"])

    with refused(Code.INVALID_ARGUMENT, "FRAME_INVALID"):
        running.admin.call(running.admin.files.PutFile, messages())
    with refused(Code.NOT_FOUND, "VERSION_NOT_FOUND"):
        running.admin.show("named-twice")


def test_models_are_listed_as_far_as_the_caller_may_read(running: Installation) -> None:
    for number in range(5):
        running.admin.push("v", {"a": b"x"}, model=f"list-{number}")
    reader = running.caller(
        principal("reader", "models.read", resources=("managers/default/models/list-*",), deny="*/*/models/list-3")
    )
    everything = reader.list_models()
    assert [model.name for model in everything.models] == ["list-0", "list-1", "list-2", "list-4"]
    assert everything.models[0].latest_version == "v"
    pages, token = [], ""
    while True:
        page = reader.list_models(page_size=2, page_token=token)
        pages.append([model.name for model in page.models])
        token = page.next_page_token
        if not token:
            break
    assert pages == [["list-0", "list-1"], ["list-2", "list-4"]]
    request = models_pb2.ListModelsRequest(manager_id="nobody")
    with refused(Code.NOT_FOUND, "MANAGER_NOT_FOUND"):
        reader.call(reader.models.ListModels, request)


def test_versions_are_listed_newest_first(running: Installation) -> None:
    for name in ("one", "two", "three"):
        running.admin.push(name, {"a": b"x"}, model="history")
    first = running.admin.list_versions("history", page_size=2)
    assert [version.version for version in first.versions] == ["three", "two"]
    second = running.admin.list_versions("history", page_size=2, page_token=first.next_page_token)
    assert ([version.version for version in second.versions], second.next_page_token) == (["one"], "")
    with refused(Code.NOT_FOUND, "MODEL_NOT_FOUND"):
        running.admin.list_versions("no-history")
    with refused(Code.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
        running.admin.list_versions("history", page_token="first")
