"""No caller and no crowd takes a service from the others: calls at a time, and calls that wait."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from services.shared import service as service_module
from services.shared.identity import Principal
from services.shared.service import Server, Service
from services.shared.settings import ServiceSettings
from services.shared.tokens import ServiceIdentity, TokenVerifier, load_service_keys
from strongroom.auth.v1 import info_pb2, info_pb2_grpc
from strongroom.models.v1 import weights_pb2, weights_pb2_grpc
from strongroom.secrets.v1 import keys_pb2, keys_pb2_grpc, secrets_pb2, secrets_pb2_grpc
from tests.serving import ADMINISTRATOR, TokenMaker, make_identities, make_token_maker

WORKERS = 8
LIMIT = 6
GET = "/strongroom.secrets.v1.SecretService/GetSecret"
WRITE = "/strongroom.models.v1.WeightsService/WriteChunks"


class _Secrets(secrets_pb2_grpc.SecretServiceServicer):
    def __init__(self) -> None:
        self.may_answer = threading.Event()

    def GetSecret(self, request: secrets_pb2.GetSecretRequest, context: grpc.ServicerContext):
        if request.name == "slow":
            self.may_answer.wait(20)
        return secrets_pb2.GetSecretResponse(name=request.name)


class _Keys(keys_pb2_grpc.KeyServiceServicer):
    def CreateKek(self, request, context):
        return keys_pb2.CreateKekResponse(kek_id=request.kek_id)


class _Info(info_pb2_grpc.InfoServiceServicer):
    def GetInfo(self, request, context):
        return info_pb2.GetInfoResponse(name="strongroom")


class _Weights(weights_pb2_grpc.WeightsServiceServicer):
    def WriteChunks(self, request_iterator, context):
        return weights_pb2.WriteChunksResponse(chunks_received=len(list(request_iterator)))


@dataclass
class Running:
    """A service with few threads, and callers of it."""

    address: str
    identities: Path
    tokens: TokenMaker
    servicer: _Secrets
    opened: ExitStack = field(default_factory=ExitStack)

    def channel(self) -> grpc.Channel:
        return self.opened.enter_context(grpc.insecure_channel(self.address))

    def metadata(self, name: str) -> list[tuple[str, str]]:
        who = Principal(f"key:{name}", name, f"key:{name}-1", name, ADMINISTRATOR.grants)
        return self.tokens.metadata("secrets", who)

    def get(self, caller: str, name: str = "a", seconds: float = 5) -> str:
        stub = secrets_pb2_grpc.SecretServiceStub(self.channel())
        request = secrets_pb2.GetSecretRequest(name=name)
        return stub.GetSecret(request, metadata=self.metadata(caller), timeout=seconds).name

    def idle(self, caller: str, method: str = GET, metadata: list[tuple[str, str]] | None = None) -> grpc.Call:
        """Opens a call and sends no message."""
        held = threading.Event()
        self.opened.callback(held.set)

        def nothing() -> Iterator[bytes]:
            held.wait(60)
            yield from ()

        call = (
            self.channel()
            .stream_unary(method)
            .future(nothing(), metadata=self.metadata(caller) if metadata is None else metadata, timeout=30)
        )
        self.opened.callback(call.cancel)
        return call


@contextmanager
def _running(folder: Path, **settings: int) -> Iterator[Running]:
    tokens, identities, servicer = make_token_maker(), make_identities(folder / "keys"), _Secrets()
    verifier = TokenVerifier("secrets", tokens.access_keys, load_service_keys(identities), lambda _id: False)

    def register(server: grpc.Server) -> None:
        secrets_pb2_grpc.add_SecretServiceServicer_to_server(servicer, server)
        keys_pb2_grpc.add_KeyServiceServicer_to_server(_Keys(), server)
        weights_pb2_grpc.add_WeightsServiceServicer_to_server(_Weights(), server)
        info_pb2_grpc.add_InfoServiceServicer_to_server(_Info(), server)

    names = ("secrets.v1.SecretService", "secrets.v1.KeyService", "models.v1.WeightsService", "auth.v1.InfoService")
    service = Service("secrets", [f"strongroom.{name}" for name in names], register, verifier)
    server = Server(service, ServiceSettings(secrets_listen="127.0.0.1:0", **settings))
    server.start()
    running = Running(f"127.0.0.1:{server.port}", identities, tokens, servicer)
    try:
        with running.opened:
            yield running
    finally:
        servicer.may_answer.set()
        server.stop(grace=0)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with _running(tmp_path, workers=WORKERS) as service:
        yield service


def _refusal(error: grpc.RpcError) -> tuple[str, str, int]:
    """Code, reason and the seconds of RetryInfo."""
    status = rpc_status.from_call(error)
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    return error.code().name, info.reason, retry.retry_delay.seconds


def _refused(running: Running, caller: str) -> tuple[str, str, int]:
    """How the caller's next call is refused, once the calls before have arrived."""
    deadline = time.monotonic() + 60
    while True:
        try:
            running.get(caller)
        except grpc.RpcError as error:
            return _refusal(error)
        assert time.monotonic() < deadline
        time.sleep(0.02)


TOO_MANY = ("RESOURCE_EXHAUSTED", "TOO_MANY_CONCURRENT_CALLS", 1)


@pytest.mark.row("S1.9")
@pytest.mark.parametrize("method", [GET, WRITE], ids=["single requests", "streams"])
def test_a_second_key_is_served_while_the_first_holds_its_share_with_idle_calls(running: Running, method: str) -> None:
    for _ in range(4 * WORKERS):
        running.idle("greedy", method)
    assert _refused(running, "greedy") == TOO_MANY
    assert [running.get("modest") for _ in range(20)] == ["a"] * 20
    assert _refused(running, "greedy") == TOO_MANY


def test_the_share_is_three_quarters_of_the_threads(running: Running) -> None:
    calls = [running.idle("greedy") for _ in range(WORKERS)]
    _refused(running, "greedy")
    deadline = time.monotonic() + 60
    while sum(call.done() for call in calls) < WORKERS - LIMIT and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sum(call.done() for call in calls) == WORKERS - LIMIT


def test_a_call_that_ends_makes_room(running: Running) -> None:
    calls = [running.idle("greedy") for _ in range(LIMIT)]
    assert _refused(running, "greedy") == TOO_MANY
    calls[0].cancel()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            assert running.get("greedy") == "a"
            break
        except grpc.RpcError:
            time.sleep(0.02)
    else:
        raise AssertionError("the place of a call that ended was not given again")


def test_all_sessions_and_versions_of_a_caller_share_its_place(running: Running) -> None:
    for number in range(LIMIT):
        who = Principal("user:ann", "ann", f"session:{number}", "", ADMINISTRATOR.grants)
        running.idle("ann", metadata=running.tokens.metadata("secrets", who))
    time.sleep(0.3)
    stub = secrets_pb2_grpc.SecretServiceStub(running.channel())
    another = Principal("user:ann", "ann", "session:another", "", ADMINISTRATOR.grants)
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetSecret(
            secrets_pb2.GetSecretRequest(name="a"), metadata=running.tokens.metadata("secrets", another), timeout=5
        )
    assert _refusal(refused.value) == TOO_MANY


def test_services_are_not_held_to_a_share(running: Running) -> None:
    identity = ServiceIdentity.load("models", running.identities)
    token = [("x-strongroom-identity", identity.token("secrets"))]
    for _ in range(WORKERS - 1):
        running.idle("", "/strongroom.secrets.v1.KeyService/CreateKek", token)
    time.sleep(0.3)
    stub = keys_pb2_grpc.KeyServiceStub(running.channel())
    assert stub.CreateKek(keys_pb2.CreateKekRequest(kek_id="a"), metadata=token, timeout=5).kek_id == "a"


def test_whoever_has_no_credential_holds_no_thread(running: Running) -> None:
    calls = [running.idle("", metadata=[]) for _ in range(4 * WORKERS)]
    assert {call.exception(timeout=5).code() for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}
    assert running.get("modest") == "a"


def test_strangers_whose_messages_do_not_come_are_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_MESSAGE_SECONDS", 1.0)
    monkeypatch.setattr(service_module, "_CHECK_SECONDS", 0.1)
    with _running(tmp_path, workers=WORKERS) as running:
        idle = [running.idle("", "/strongroom.auth.v1.InfoService/GetInfo", []) for _ in range(WORKERS)]
        ours = running.idle("patient")
        info = info_pb2_grpc.InfoServiceStub(running.channel())
        assert info.GetInfo(info_pb2.GetInfoRequest(), timeout=5).name == "strongroom"
        assert {call.exception(timeout=5).code() for call in idle} == {grpc.StatusCode.CANCELLED}
        assert not ours.done()


def test_a_call_without_its_message_is_the_callers_fault(running: Running) -> None:
    call = running.channel().stream_unary(GET)
    with pytest.raises(grpc.RpcError) as refused:
        call(iter(()), metadata=running.metadata("a"), timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "before its message" in refused.value.details()


def test_an_overloaded_service_refuses_at_once_and_its_health_is_told(tmp_path: Path) -> None:
    with _running(tmp_path, workers=2, waiting_calls=3) as running:
        stub = secrets_pb2_grpc.SecretServiceStub(running.channel())
        slow = [
            stub.GetSecret.future(
                secrets_pb2.GetSecretRequest(name="slow"), metadata=running.metadata(f"caller-{number}"), timeout=20
            )
            for number in range(12)
        ]
        deadline = time.monotonic() + 60
        while sum(call.done() for call in slow) < 7 and time.monotonic() < deadline:
            time.sleep(0.02)
        refused = [call.exception() for call in slow if call.done()]
        # Two are served, three wait.
        assert [_refusal(error) for error in refused] == [("RESOURCE_EXHAUSTED", "OVERLOADED", 1)] * 7
        health = health_pb2_grpc.HealthStub(running.channel())
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status
        running.servicer.may_answer.set()
        assert [call.result().name for call in slow if call not in refused and not call.exception()] == ["slow"] * 5
        assert running.get("after") == "a"


def test_the_share_can_be_set() -> None:
    assert [ServiceSettings(workers=workers).calls_per_caller for workers in (1, 2, 4, 32)] == [1, 1, 3, 24]
    assert ServiceSettings(workers=32, caller_workers=5).calls_per_caller == 5
