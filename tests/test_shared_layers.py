"""The layers around every method, through a real channel to a real server."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf import struct_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from services.shared import layers
from services.shared.call import caller
from services.shared.errors import NotFound
from services.shared.identity import Grant, Principal
from services.shared.service import Server, Service
from services.shared.settings import ServiceSettings
from services.shared.tokens import ServiceIdentity, TokenVerifier, load_service_keys
from strongroom.models.v1 import weights_pb2, weights_pb2_grpc
from strongroom.secrets.v1 import keys_pb2, keys_pb2_grpc, secrets_pb2, secrets_pb2_grpc
from tests.serving import ADMINISTRATOR, TokenMaker, make_identities, make_token_maker, wait_healthy


class _Secrets(secrets_pb2_grpc.SecretServiceServicer):
    def GetSecret(self, request: secrets_pb2.GetSecretRequest, context: grpc.ServicerContext):
        if request.name == "missing":
            raise NotFound("There is no secret 'missing'.", reason="SECRET_NOT_FOUND", secret="missing")
        if request.name == "broken":
            raise RuntimeError("the value was hunter2")
        return secrets_pb2.GetSecretResponse(name=caller(context).id)

    def CreateSecret(self, request, context):
        return secrets_pb2.SecretVersion(name=request.name, version=1)


class _Keys(keys_pb2_grpc.KeyServiceServicer):
    def CreateKek(self, request, context):
        return keys_pb2.CreateKekResponse(kek_id=caller(context).id)


class _Weights(weights_pb2_grpc.WeightsServiceServicer):
    def WriteChunks(self, request_iterator, context):
        messages = list(request_iterator)
        return weights_pb2.WriteChunksResponse(chunks_received=len(messages))

    def ReadFile(self, request, context):
        yield weights_pb2.ReadFileResponse(data=b"one")
        while request.path == "endless":
            yield weights_pb2.ReadFileResponse(data=b"more")
        raise NotFound("The rest is gone.", reason="GONE")


class _Stack:
    def __init__(self, folder: Path, notice_seconds: float = 0) -> None:
        self.tokens: TokenMaker = make_token_maker()
        self.identities = make_identities(folder / "keys")
        self.revoked: set[str] = set()
        verifier = TokenVerifier(
            "secrets", self.tokens.access_keys, load_service_keys(self.identities), self.revoked.__contains__
        )
        names = ("strongroom.secrets.v1.SecretService", "strongroom.secrets.v1.KeyService")
        service = Service("secrets", (*names, "strongroom.models.v1.WeightsService"), self._register, verifier)
        self.server = Server(service, ServiceSettings(secrets_listen="127.0.0.1:0", notice_seconds=notice_seconds))
        self.server.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}")
        self.secrets = secrets_pb2_grpc.SecretServiceStub(self.channel)
        self.keys = keys_pb2_grpc.KeyServiceStub(self.channel)
        self.weights = weights_pb2_grpc.WeightsServiceStub(self.channel)

    @staticmethod
    def _register(server: grpc.Server) -> None:
        secrets_pb2_grpc.add_SecretServiceServicer_to_server(_Secrets(), server)
        keys_pb2_grpc.add_KeyServiceServicer_to_server(_Keys(), server)
        weights_pb2_grpc.add_WeightsServiceServicer_to_server(_Weights(), server)

    def get(self, name: str, principal: Principal = ADMINISTRATOR):
        request = secrets_pb2.GetSecretRequest(name=name)
        return self.secrets.GetSecret(request, metadata=self.tokens.metadata("secrets", principal), timeout=5)


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[_Stack]:
    stack = _Stack(tmp_path_factory.mktemp("layers"))
    yield stack
    stack.channel.close()
    stack.server.stop(grace=1)


def _error(call) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    if status is not None:
        assert len(status.details) == 1
        assert status.details[0].Unpack(info)
    return caught.value.code(), info, caught.value.details()


def test_a_valid_identity_reaches_the_servicer(stack: _Stack) -> None:
    assert stack.get("a").name == "key:admin"


def test_a_domain_error_carries_one_error_info(stack: _Stack) -> None:
    code, info, message = _error(lambda: stack.get("missing"))
    assert (code, info.reason, info.domain) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND", "strongroom")
    assert info.metadata["secret"] == "missing"
    assert info.metadata["request_id"]
    assert message == "There is no secret 'missing'."


def test_an_unforeseen_error_tells_an_id_and_nothing_else(stack: _Stack) -> None:
    code, info, message = _error(lambda: stack.get("broken"))
    assert (code, info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in message
    assert info.metadata["request_id"] in message


def test_no_credential_is_unauthenticated_before_anything_is_validated(stack: _Stack) -> None:
    code, info, _ = _error(lambda: stack.secrets.GetSecret(secrets_pb2.GetSecretRequest(), timeout=5))
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING")


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "models"},
        {"iss": "somebody"},
        {"exp": 1},
        {"iat": 4_000_000_000, "exp": 4_000_000_060},
        {"grants": [["maybe", ["*"], ["**"]]]},
    ],
    ids=["other audience", "other issuer", "expired", "not yet valid", "unknown effect"],
)
def test_a_token_with_a_wrong_claim_is_refused(stack: _Stack, claims: dict) -> None:
    token = stack.tokens.token("secrets", ADMINISTRATOR, **claims)
    request = secrets_pb2.GetSecretRequest(name="a")
    code, info, _ = _error(
        lambda: stack.secrets.GetSecret(request, metadata=[("x-strongroom-identity", token)], timeout=5)
    )
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


def test_an_api_key_sent_to_a_service_is_no_credential(stack: _Stack) -> None:
    request = secrets_pb2.GetSecretRequest(name="a")
    code, _, _ = _error(lambda: stack.secrets.GetSecret(request, metadata=[("x-api-key", "sr_abc")], timeout=5))
    assert code == grpc.StatusCode.UNAUTHENTICATED


def test_a_revoked_credential_is_refused_although_its_token_was_verified_before(stack: _Stack) -> None:
    principal = Principal("key:r", "r", "r", "r", ADMINISTRATOR.grants)
    assert stack.get("a", principal).name == "key:r"
    stack.revoked.add("r")
    code, _, _ = _error(lambda: stack.get("a", principal))
    assert code == grpc.StatusCode.UNAUTHENTICATED


def test_a_missing_permission_is_named(stack: _Stack) -> None:
    reader = Principal("key:m", "m", "m", "m", (Grant("allow", ("models.read",), ("**",)),))
    code, info, message = _error(lambda: stack.get("prod/db", reader))
    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
    assert "secrets.read on secrets/prod/db" in message


def test_the_resource_is_filled_from_the_decoded_request(stack: _Stack) -> None:
    scoped = Principal("key:s", "s", "s", "s", (Grant("allow", ("secrets.read",), ("secrets/prod/*",)),))
    assert stack.get("prod/db", scoped).name == "key:s"
    code, _, _ = _error(lambda: stack.get("dev/db", scoped))
    assert code == grpc.StatusCode.PERMISSION_DENIED


def test_an_invalid_field_is_named(stack: _Stack) -> None:
    request = secrets_pb2.CreateSecretRequest(name="../etc", data=struct_pb2.Struct())
    code, info, message = _error(
        lambda: stack.secrets.CreateSecret(request, metadata=stack.tokens.metadata("secrets"), timeout=5)
    )
    assert (code, info.reason, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", "name")
    assert message.startswith("name must be a path")


def test_a_creation_hints_its_http_status(stack: _Stack) -> None:
    request = secrets_pb2.CreateSecretRequest(name="a", data=struct_pb2.Struct())
    _, call = stack.secrets.CreateSecret.with_call(request, metadata=stack.tokens.metadata("secrets"), timeout=5)
    assert ("x-http-code", "201") in [(key, value) for key, value in call.initial_metadata()]


def test_service_methods_are_for_services_alone(stack: _Stack) -> None:
    request = keys_pb2.CreateKekRequest(kek_id="a")
    code, info, _ = _error(lambda: stack.keys.CreateKek(request, metadata=stack.tokens.metadata("secrets"), timeout=5))
    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SERVICE_ONLY")
    token = ServiceIdentity.load("models", stack.identities).token("secrets")
    assert stack.keys.CreateKek(request, metadata=[("x-strongroom-identity", token)], timeout=5).kek_id == "models"


def test_services_do_not_call_what_is_made_for_people(stack: _Stack) -> None:
    token = ServiceIdentity.load("models", stack.identities).token("secrets")
    request = secrets_pb2.GetSecretRequest(name="a")
    code, info, _ = _error(
        lambda: stack.secrets.GetSecret(request, metadata=[("x-strongroom-identity", token)], timeout=5)
    )
    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SERVICE_NOT_ALLOWED")


def test_a_service_token_of_one_service_is_not_another(stack: _Stack, tmp_path: Path) -> None:
    forged = ServiceIdentity("models", ServiceIdentity.load("auth", make_identities(tmp_path)).key).token("secrets")
    request = keys_pb2.CreateKekRequest(kek_id="a")
    code, _, _ = _error(lambda: stack.keys.CreateKek(request, metadata=[("x-strongroom-identity", forged)], timeout=5))
    assert code == grpc.StatusCode.UNAUTHENTICATED


def test_a_stream_is_authorized_on_its_first_message_and_loses_none(stack: _Stack) -> None:
    header = weights_pb2.WriteChunksHeader(manager_id="m", model_name="n", upload_id="u")
    messages = [weights_pb2.WriteChunksRequest(header=header)]
    messages += [weights_pb2.WriteChunksRequest(frame=weights_pb2.ChunkFrame(data=b"x")) for _ in range(3)]
    answer = stack.weights.WriteChunks(iter(messages), metadata=stack.tokens.metadata("secrets"), timeout=5)
    assert answer.chunks_received == 4
    scoped = Principal("key:w", "w", "w", "w", (Grant("allow", ("models.write",), ("managers/other/**",)),))
    code, _, message = _error(
        lambda: stack.weights.WriteChunks(iter(messages), metadata=stack.tokens.metadata("secrets", scoped), timeout=5)
    )
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert "managers/m/models/n" in message


def test_an_empty_stream_is_refused(stack: _Stack) -> None:
    code, info, _ = _error(
        lambda: stack.weights.WriteChunks(iter([]), metadata=stack.tokens.metadata("secrets"), timeout=5)
    )
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "STREAM_EMPTY")


def test_an_error_in_the_middle_of_an_answer_stream_keeps_its_reason(stack: _Stack) -> None:
    request = weights_pb2.ReadFileRequest(manager_id="m", model_name="n", version="v", path="p")
    answers = stack.weights.ReadFile(request, metadata=stack.tokens.metadata("secrets"), timeout=5)
    assert next(answers).data == b"one"
    code, info, _ = _error(lambda: next(answers))
    assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "GONE")


def _raw_call(stack: _Stack, path: str, message: bytes, *, streaming: bool = False):
    make = stack.channel.stream_unary if streaming else stack.channel.unary_unary
    method = make(path, request_serializer=None, response_deserializer=None)
    metadata = stack.tokens.metadata("secrets")
    return lambda: method(iter([message]) if streaming else message, metadata=metadata, timeout=5)


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x02\xc3\x28", b"\x0a\x7f"], ids=["no tag", "no text", "cut"])
def test_a_message_that_is_none_is_the_callers_fault(stack: _Stack, message: bytes) -> None:
    malformed = (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED")
    code, info, _ = _error(_raw_call(stack, "/strongroom.secrets.v1.SecretService/GetSecret", message))
    assert (code, info.reason) == malformed
    code, info, _ = _error(
        _raw_call(stack, "/strongroom.models.v1.WeightsService/WriteChunks", message, streaming=True)
    )
    assert (code, info.reason) == malformed


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field as it stands on the wire."""
    length, size = bytearray(), len(content)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def test_a_message_nested_too_deep_is_the_callers_fault(stack: _Stack) -> None:
    value = b"\x08\x00"
    for _ in range(120):
        value = _field(6, _field(1, value))
    message = _field(1, b"deep") + _field(2, _field(1, _field(1, b"x") + _field(2, value)))
    code, info, _ = _error(_raw_call(stack, "/strongroom.secrets.v1.SecretService/CreateSecret", message))
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED")


LEAVING = Principal("key:leaving", "leaving", "leaving", "leaving", ADMINISTRATOR.grants)


@pytest.fixture
def leaving(stack: _Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """The metadata of a caller whose credential a test revokes. Streams look at it at every message."""
    monkeypatch.setattr(layers, "_RECHECK_SECONDS", 0.0)
    yield stack.tokens.metadata("secrets", LEAVING)
    stack.revoked.discard("leaving")


def test_a_download_ends_when_its_credential_is_revoked(stack: _Stack, leaving: list[tuple[str, str]]) -> None:
    request = weights_pb2.ReadFileRequest(manager_id="m", model_name="n", version="v", path="endless")
    answers = stack.weights.ReadFile(request, metadata=leaving, timeout=5)
    assert next(answers).data == b"one"
    stack.revoked.add("leaving")
    code, info, _ = _error(lambda: list(answers))
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


def test_an_upload_ends_when_its_credential_is_revoked(stack: _Stack, leaving: list[tuple[str, str]]) -> None:
    def messages() -> Iterator[weights_pb2.WriteChunksRequest]:
        header = weights_pb2.WriteChunksHeader(manager_id="m", model_name="n", upload_id="1")
        yield weights_pb2.WriteChunksRequest(header=header)
        stack.revoked.add("leaving")
        while True:
            yield weights_pb2.WriteChunksRequest(frame=weights_pb2.ChunkFrame(lengths=[3], data=b"one"))

    code, info, _ = _error(lambda: stack.weights.WriteChunks(messages(), metadata=leaving, timeout=5))
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


def test_a_service_that_gives_notice_serves_and_says_that_it_will_not(tmp_path: Path) -> None:
    """The gateway, which asks for its health, sends requests elsewhere before any is refused."""
    ending, began = _Stack(tmp_path, notice_seconds=0.3), time.monotonic()
    health = health_pb2_grpc.HealthStub(ending.channel)
    wait_healthy(f"127.0.0.1:{ending.server.port}")
    with ThreadPoolExecutor(1) as threads:
        threads.submit(ending.server.give_notice)
        told = (answer.status for answer in health.Watch(health_pb2.HealthCheckRequest(), timeout=20))
        assert health_pb2.HealthCheckResponse.NOT_SERVING in told
        assert ending.get("a").name == ADMINISTRATOR.id
    assert time.monotonic() - began >= 0.3
    ending.channel.close()
    ending.server.stop(grace=1)
