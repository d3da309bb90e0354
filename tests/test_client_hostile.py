"""A server that lies: nothing wrong is ever written, and nothing is written elsewhere."""

import hashlib
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from strongroom import Client, partial_file
from strongroom.errors import DataLoss, InvalidArgument, LocalFileError, NotFound, StrongroomError, Unauthenticated
from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2, weights_pb2_grpc

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Liar(models_pb2_grpc.ModelServiceServicer, weights_pb2_grpc.WeightsServiceServicer):
    """Announces these files and sends these bytes, whatever is asked for."""

    def __init__(self, files: list[models_pb2.File], sent: bytes) -> None:
        self.files = files
        self.sent = sent

    def GetVersion(self, request: models_pb2.GetVersionRequest, context: grpc.ServicerContext) -> models_pb2.Version:
        return models_pb2.Version(
            version="v1", files=self.files, size_bytes=sum(file.size_bytes for file in self.files)
        )

    def ReadFile(
        self, request: weights_pb2.ReadFileRequest, context: grpc.ServicerContext
    ) -> Iterator[weights_pb2.ReadFileResponse]:
        yield weights_pb2.ReadFileResponse(data=self.sent[request.offset :])

    def DeleteVersion(
        self, request: models_pb2.DeleteVersionRequest, context: grpc.ServicerContext
    ) -> models_pb2.DeleteVersionResponse:
        info = any_pb2.Any()
        info.Pack(error_details_pb2.ErrorInfo(reason="GONE", domain="strongroom", metadata={"request_id": "r1"}))
        status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="It is gone.", details=[info])
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort raises")


@contextmanager
def lying(files: list[models_pb2.File], sent: bytes = CONTENT) -> Iterator[Client]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    liar = Liar(files, sent)
    models_pb2_grpc.add_ModelServiceServicer_to_server(liar, server)
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(liar, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"http://127.0.0.1:{port}", api_key="sr_x") as client:
            yield client
    finally:
        server.stop(None).wait()


def file(path: str = "w.bin", size: int = len(CONTENT), sha256: str = SHA256) -> models_pb2.File:
    return models_pb2.File(path=path, size_bytes=size, sha256=sha256)


def test_an_honest_answer_is_taken(tmp_path: Path) -> None:
    with lying([file()]) as client:
        client.models.pull("m", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["../w.bin", "/tmp/w.bin", "a/../../w.bin"])  # noqa: S108 - refused
def test_a_path_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "dest").mkdir()
    with lying([file(path)]) as client, pytest.raises(DataLoss) as caught:
        client.models.pull("m", tmp_path / "dest")
    assert caught.value.reason == "PATH_UNSAFE"
    assert list(tmp_path.rglob("*")) == [tmp_path / "dest"]


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    with lying([file()], CONTENT[:-1] + b"!") as client, pytest.raises(DataLoss) as caught:
        client.models.pull("m", tmp_path / "copy")
    assert caught.value.reason == "SHA256_MISMATCH"
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_do_not_replace_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("mine")
    with lying([file()], b"x" * len(CONTENT)) as client, pytest.raises(DataLoss):
        client.models.pull("m", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "mine"


def test_more_bytes_are_refused(tmp_path: Path) -> None:
    with lying([file()], CONTENT + b"more") as client, pytest.raises(DataLoss) as caught:
        client.models.pull("m", tmp_path / "copy")
    assert caught.value.reason == "ANSWER_TOO_LONG"
    assert not (tmp_path / "copy").exists()


def test_a_short_stream_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.persevere._LONGEST_WAIT", 0.01)
    with lying([file()], CONTENT[:-1]) as client, pytest.raises(StrongroomError) as caught:
        client.models.pull("m", tmp_path / "copy")
    assert caught.value.reason == "STREAM_CUT"
    assert not (tmp_path / "copy").exists()


def test_one_bad_file_of_many_fails_the_pull(tmp_path: Path) -> None:
    files = [file(f"{number}.bin") for number in range(20)] + [file("bad.bin", sha256="0" * 64)]
    with lying(files) as client, pytest.raises(DataLoss, match=r"bad\.bin"):
        client.models.pull("m", tmp_path)
    assert not (tmp_path / "bad.bin").exists()


def test_a_partial_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    partial_file.temporary_path(tmp_path / "copy", SHA256).symlink_to(tmp_path / "victim")
    with lying([file()]) as client, pytest.raises(LocalFileError):
        client.models.pull("m", tmp_path / "copy")
    assert (tmp_path / "victim").read_text() == "mine"


def test_an_error_says_what_the_server_said() -> None:
    with lying([]) as client, pytest.raises(NotFound) as caught:
        client.models.delete("m", "v1")
    error = caught.value
    assert (error.reason, error.message, error.code, error.request_id) == ("GONE", "It is gone.", "NOT_FOUND", "r1")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080",
        "ftp://room",
        "http://",
        "http://room/path",
        "http://room:99999",
        "http://[::1",
        "http://room?a",
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Client(url, api_key="sr_x")
    assert caught.value.reason == "URL_INVALID"


def test_a_key_that_is_none_is_not_sent() -> None:
    with pytest.raises(Unauthenticated) as caught:
        Client("http://127.0.0.1:9", api_key="sr_x\r\nx-other: 1")
    assert "sr_x" not in str(caught.value)
