"""What an attacker tried, once, and what became of it: each of these was found by attacking before it was mended."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from strongroom.auth.v1 import api_keys_pb2, api_keys_pb2_grpc
from strongroom.chunking import digest
from strongroom.local.errors import StartError
from strongroom.local.layout import Layout
from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc
from tests.stack import Stack
from tests.uploads import Uploads

# More than the threads that a service has for one kind of callers.
MANY = 40
COMMIT = "/strongroom.models.v1.WeightsService/CommitUpload"
OPEN_TO_STRANGERS = (
    "/strongroom.auth.v1.InfoService/GetInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/grpc.health.v1.Health/Watch",
)


@pytest.fixture(scope="module")
def channel(stack: Stack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(stack.target, [("grpc.max_send_message_length", -1)]) as channel:
        yield channel


@pytest.fixture(scope="module")
def admin(stack: Stack, channel: grpc.Channel) -> Uploads:
    return Uploads(channel, stack.admin_key)


def create_key(channel: grpc.Channel, maker: str, **fields: object) -> api_keys_pb2.ApiKey:
    request = api_keys_pb2.CreateApiKeyRequest(name="attack", **fields)
    return api_keys_pb2_grpc.ApiKeyServiceStub(channel).CreateApiKey(
        request, metadata=[("x-api-key", maker)], timeout=20
    )


def reason(error: grpc.RpcError) -> str:
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


class Idle:
    """So many calls of a method that send their headers and then nothing."""

    def __init__(self, target: str, method: str, count: int = MANY) -> None:
        self._over = threading.Event()
        self._channel = grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])
        self.calls = [self._channel.stream_stream(method)(self._nothing()) for _ in range(count)]

    def _nothing(self) -> Iterator[bytes]:
        self._over.wait()
        yield from ()

    def __enter__(self) -> "Idle":
        time.sleep(0.5)  # until the last of them holds what it can get
        return self

    def __exit__(self, *_raised: object) -> None:
        for call in self.calls:
            call.cancel()
        self._over.set()
        self._channel.close()


@pytest.mark.parametrize("method", OPEN_TO_STRANGERS)
def test_strangers_who_send_nothing_do_not_keep_others_out(stack: Stack, admin: Uploads, method: str) -> None:
    with Idle(stack.target, method):
        assert not admin.exists("nobody", "v1")


def test_strangers_on_a_port_behind_the_gateway_are_not_waited_for(stack: Stack) -> None:
    target = f"127.0.0.1:{stack.state['ports']['models']}"
    with Idle(target, "/strongroom.models.v1.WeightsService/WriteChunks", 1) as idle:
        assert idle.calls[0].code() == grpc.StatusCode.UNAUTHENTICATED


def test_names_of_megabytes_are_neither_matched_nor_kept(stack: Stack, channel: grpc.Channel) -> None:
    reader = create_key(channel, stack.admin_key, permissions=["models.read"], scopes=["managers/*a*b*c*/**"])
    request = models_pb2.GetVersionRequest(manager_id="ab" * (4 << 20), model_name="m", version="v")
    with pytest.raises(grpc.RpcError) as raised:
        models_pb2_grpc.ModelServiceStub(channel).GetVersion(request, metadata=[("x-api-key", reader.key)], timeout=2)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("files", [100_000, 8_000_000])
def test_a_small_message_of_many_bad_files_is_refused_at_once(
    stack: Stack, channel: grpc.Channel, admin: Uploads, files: int
) -> None:
    names = {"manager_id": "default", "model_name": "attack", "upload_id": admin.create("attack", f"many-{files}")}
    message = weights_pb2.CommitUploadRequest(**names).SerializeToString() + b"\x22\x00" * files
    before = resident(stack, "models")
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(COMMIT)(message, metadata=admin.metadata, timeout=5)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert resident(stack, "models") - before < 200 << 20


def test_a_commit_with_fields_of_another_protocol_is_refused(channel: grpc.Channel, admin: Uploads) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(COMMIT)(b"\x53\x54" + b"\x22\x00" * 100, metadata=admin.metadata, timeout=5)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_writer_does_not_hear_what_others_have_stored(stack: Stack, channel: grpc.Channel, admin: Uploads) -> None:
    secret = b"a chunk that only somebody else has sent"
    admin.push("attack-owner", "v1", {"f": secret})
    key = create_key(
        channel, stack.admin_key, permissions=["models.write"], scopes=["managers/default/models/attack-w"]
    )
    writer = Uploads(channel, key.key)
    answers = [
        writer.write("attack-w", writer.create("attack-w", f"v{number}"), [guess])
        for number, guess in enumerate([secret, b"a chunk that nobody has sent till now..."])
    ]
    assert answers[0] == answers[1]
    assert admin.write("attack-a", admin.create("attack-a", "v1"), [secret]).chunks_deduplicated == 1


def test_a_key_that_ends_cannot_renew_itself(stack: Stack, channel: grpc.Channel) -> None:
    wish = {"permissions": ["keys.*", "models.read"]}
    mortal = create_key(channel, stack.admin_key, expires_in_days=2, **wish)
    for days in ({}, {"expires_in_days": 3}):
        with pytest.raises(grpc.RpcError) as raised:
            create_key(channel, mortal.key, **wish, **days)
        assert reason(raised.value) == "LIFETIME_NOT_COVERED"
    assert create_key(channel, mortal.key, expires_in_days=1, **wish).key


def test_verification_ends_with_its_caller(stack: Stack, channel: grpc.Channel, admin: Uploads) -> None:
    """A version of terabytes that is one chunk over and over takes a message to make and hours to read."""
    chunk = bytes(4 << 20)
    upload = admin.create("attack-bomb", "v1")
    admin.write("attack-bomb", upload, [chunk])
    times = 200_000
    bomb = weights_pb2.UploadedFile(
        path="f", sha256=bytes(32), chunk_digests=digest(chunk) * times, chunk_lengths=[len(chunk)] * times
    )
    admin.commit("attack-bomb", upload, [bomb])
    request = models_pb2.VerifyVersionRequest(manager_id="default", model_name="attack-bomb", version="v1")
    with pytest.raises(grpc.RpcError):
        admin.models.VerifyVersion(request, metadata=admin.metadata, timeout=1)
    # Others use this stack too, but not without a pause: reading on would take all of a core for hours.
    deadline = time.monotonic() + 60
    used = 1.0
    while used >= 0.5:
        assert time.monotonic() < deadline, "the verification goes on"
        before = processor_seconds(stack, "models")
        time.sleep(1)
        used = processor_seconds(stack, "models") - before


def test_a_message_for_the_secrets_service_is_small(channel: grpc.Channel, stack: Stack) -> None:
    request = secrets_pb2.CreateSecretRequest(name="attack")
    request.data["v"] = "a" * (5 << 20)
    with pytest.raises(grpc.RpcError) as raised:
        secrets_pb2_grpc.SecretServiceStub(channel).CreateSecret(
            request, metadata=[("x-api-key", stack.admin_key)], timeout=20
        )
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("folder", [".", "keys", "logs"])
def test_a_folder_that_everybody_may_write_to_holds_no_keys(tmp_path: Path, folder: str) -> None:
    """Whoever may write there can put an administrator's key or a service's identity of their own in its place."""
    layout = Layout(tmp_path / "data")
    layout.create()
    (layout.root / folder).chmod(0o777)
    with pytest.raises(StartError, match="chmod 700"):
        layout.create()


def resident(stack: Stack, part: str) -> int:
    """The bytes of memory that a part uses."""
    return int(Path(f"/proc/{stack.state['pids'][part]}/statm").read_text().split()[1]) * 4096


def processor_seconds(stack: Stack, part: str) -> float:
    """The seconds of processor time that a part has used."""
    return sum(map(int, Path(f"/proc/{stack.state['pids'][part]}/stat").read_text().split()[13:15])) / 100
