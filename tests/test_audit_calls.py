"""Which calls are events: every one of an audited method, every refusal of any, and nothing of a payload."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from services.auth.contract import contract_services
from services.shared.access import Method, methods_of
from services.shared.audit.event import Event
from services.shared.audit.layer import AuditLayers, changes, resource_of
from services.shared.audit.log import Filter
from services.shared.audit.servicer import AUDIT_LOG_SERVICE, AuditLogServicer
from services.shared.audit.trail import Trail
from services.shared.call import address_of
from services.shared.channels import IDENTITY_HEADER, service_channel
from services.shared.errors import NotFound
from services.shared.identity import Grant, Principal
from services.shared.service import Server, Service
from services.shared.settings import ServiceSettings
from services.shared.tokens import ServiceIdentity, TokenVerifier, load_service_keys
from strongroom.audit.v1 import audit_log_pb2, audit_log_pb2_grpc
from strongroom.models.v1 import files_pb2, weights_pb2, weights_pb2_grpc
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc
from tests.audit_trails import SERVICE, Place, eventually
from tests.auth_installation import reason_of
from tests.serving import ADMINISTRATOR, make_token_maker, wait_healthy

METHODS = methods_of(contract_services())
# Those between services are refused to everybody here: tests/test_key_service_limits.py shows their events.
AUDITED = [method for method in METHODS.values() if method.audited and not any(rule.services for rule in method.rules)]
STRANGER = Principal("key:nobody", "nobody", "nobody", "nobodykp")
READER = Principal(
    "key:reader", "reader", "reader", "readerkp", (Grant("allow", ("secrets.read",), ("secrets/a/**",)),)
)


def descriptor(method: Method) -> MethodDescriptor:
    service, _, name = method.path.lstrip("/").partition("/")
    assert method.request_type is not None
    return method.request_type.DESCRIPTOR.file.services_by_name[service.rpartition(".")[2]].methods_by_name[name]


def answers(method: MethodDescriptor) -> Any:
    """A handler that answers with an empty message, whatever it is asked."""
    response = message_factory.GetMessageClass(method.output_type)
    request = message_factory.GetMessageClass(method.input_type)
    kind = {
        (False, False): (grpc.unary_unary_rpc_method_handler, lambda _request, _context: response()),
        (True, False): (grpc.stream_unary_rpc_method_handler, lambda sent, _context: (list(sent), response())[1]),
        (False, True): (grpc.unary_stream_rpc_method_handler, lambda _request, _context: iter([response()] * 3)),
        (True, True): (grpc.stream_stream_rpc_method_handler, lambda sent, _context: (response() for _ in sent)),
    }[method.client_streaming, method.server_streaming]
    make, behavior = kind
    return make(behavior, request.FromString, response.SerializeToString)


class _Weights(weights_pb2_grpc.WeightsServiceServicer):
    """Stands before the handlers above for what they can't show."""

    def ReadFile(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if request.path == "missing":
            raise NotFound("There is no such file.", reason="FILE_NOT_FOUND")
        yield weights_pb2.ReadFileResponse(data=b"one")
        yield weights_pb2.ReadFileResponse(data=b"two")
        if request.path == "broken":
            raise NotFound("The rest is gone.", reason="GONE")


class Running:
    """A server with every method of the contract, and the trail that its calls leave."""

    def __init__(self, place: Place, trail: Trail) -> None:
        self.place, self.trail = place, trail
        self.tokens = make_token_maker()
        keys = load_service_keys(place.folder / "keys")
        verifier = TokenVerifier(SERVICE, self.tokens.access_keys, keys, lambda _credential: False)
        names = (*contract_services(), AUDIT_LOG_SERVICE)
        service = Service(SERVICE, names, self._register, verifier, audit=AuditLayers(trail))
        self.server = Server(service, ServiceSettings(secrets_listen="127.0.0.1:0"))
        self.server.start()
        self.address = f"127.0.0.1:{self.server.port}"
        wait_healthy(self.address)
        self.channel = grpc.insecure_channel(self.address)

    def _register(self, server: grpc.Server) -> None:
        weights_pb2_grpc.add_WeightsServiceServicer_to_server(_Weights(), server)
        audit_log_pb2_grpc.add_AuditLogServiceServicer_to_server(AuditLogServicer(self.trail), server)
        for name in contract_services():
            handlers = {path: answers(descriptor(m)) for path, m in methods_of([name]).items()}
            named = {path.rpartition("/")[2]: handler for path, handler in handlers.items()}
            if name.endswith(".WeightsService"):
                del named["ReadFile"]
            server.add_registered_method_handlers(name, named)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, named),))

    def call(self, method: Method, principal: Principal | None, request: Any = None, **metadata: str) -> str:
        """The code that the call ends with."""
        about = descriptor(method)
        kinds = {
            (False, False): self.channel.unary_unary,
            (True, False): self.channel.stream_unary,
            (False, True): self.channel.unary_stream,
            (True, True): self.channel.stream_stream,
        }
        assert method.request_type is not None
        message = request or method.request_type()
        ask = kinds[about.client_streaming, about.server_streaming](
            method.path, request_serializer=lambda each: each.SerializeToString(), response_deserializer=lambda raw: raw
        )
        header = [(IDENTITY_HEADER, self.tokens.token(SERVICE, principal))] if principal else []
        try:
            answer = ask(
                iter([message]) if about.client_streaming else message,
                metadata=[*header, *metadata.items()],
                timeout=10,
            )
            if about.server_streaming:
                list(answer)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def events(self, **fields: str) -> list[Event]:
        return [entry.event for entry in self.trail.log.entries(Filter(kind="call", **fields), 1000)]

    def noted(self, **fields: str) -> list[Event]:
        """Events that nobody waited for."""
        self.trail.flush()
        return eventually(lambda: self.events(**fields))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    place = Place(tmp_path_factory.mktemp("audit"))
    with closing(place.open()) as database:
        trail = place.trail(database)
        trail.start()
        running = Running(place, trail)
        yield running
        running.channel.close()
        running.server.stop(grace=1)
        trail.close()
    assert place.problems() == []


def _name(method: Method) -> str:
    return method.path.rpartition(".")[2]


def test_there_are_methods_to_walk() -> None:
    assert len(AUDITED) > 25
    for path in ("secrets.v1.SecretService/GetSecret", "models.v1.WeightsService/ReadFile"):
        assert METHODS[f"/strongroom.{path}"].audited, "reads of secrets and downloads are events too"


@pytest.mark.row("S1.9")
@pytest.mark.parametrize("method", AUDITED, ids=_name)
def test_every_call_of_an_audited_method_is_one_event(running: Running, method: Method) -> None:
    caller = Principal(f"key:{_name(method)}", "walker", "walker", "walkerkp", ADMINISTRATOR.grants)
    code = running.call(method, caller, **{"x-request-id": "walk", "x-forwarded-for": "6.6.6.6, 10.1.2.3"})
    if method.public:
        # Nobody is known: it is written within a second, and counted where there are many.
        [event] = running.noted(method=method.path)
    else:
        [event] = running.events(principal=caller.id)
        assert (event.principal_name, event.key_prefix) == ("walker", "walkerkp")
    assert event.method == method.path.lstrip("/")
    assert (event.outcome, event.code) == (("allowed", "OK") if code == "OK" else ("failed", code))
    assert (event.request_id, event.address) == ("walk", "10.1.2.3")


@pytest.mark.row("S3.8")
@pytest.mark.parametrize("method", [method for method in METHODS.values() if not method.public], ids=_name)
def test_every_refusal_of_any_method_is_an_event(running: Running, method: Method) -> None:
    if not any(rule.authenticated for rule in method.rules):
        assert running.call(method, STRANGER) == "PERMISSION_DENIED"
        [event] = running.noted(principal=STRANGER.id, method=method.path)
        assert (event.outcome, event.code) == ("denied", "PERMISSION_DENIED")
        assert event.reason in ("PERMISSION_MISSING", "SERVICE_ONLY")
    assert running.call(method, None) == "UNAUTHENTICATED"


def test_strangers_are_counted_together(running: Running) -> None:
    method = METHODS["/strongroom.secrets.v1.SecretService/ListSecrets"]
    running.trail.flush(end=True)
    for _ in range(50):
        running.call(method, None, **{"x-forwarded-for": "10.9.9.9"})
    running.trail.flush(end=True)

    def found() -> list[Event]:
        return [event for event in running.events(method="ListSecrets") if event.address == "10.9.9.9"]

    eventually(lambda: sum(event.count for event in found()) == 50)
    assert len(found()) <= 3


def test_what_is_not_audited_leaves_no_event_when_it_is_allowed(running: Running) -> None:
    quiet = Principal("key:quiet", "quiet", "quiet", "quietkp", ADMINISTRATOR.grants)
    assert running.call(METHODS["/strongroom.secrets.v1.SecretService/ListSecrets"], quiet) == "OK"
    assert running.events(principal=quiet.id) == []


GET_SECRET = METHODS["/strongroom.secrets.v1.SecretService/GetSecret"]
READ_FILE = METHODS["/strongroom.models.v1.WeightsService/ReadFile"]


def test_the_resource_is_the_one_that_was_decided_on(running: Running) -> None:
    assert running.call(GET_SECRET, READER, secrets_pb2.GetSecretRequest(name="a/db")) == "OK"
    assert running.call(GET_SECRET, READER, secrets_pb2.GetSecretRequest(name="b/db")) == "PERMISSION_DENIED"
    [allowed] = running.events(principal=READER.id, outcome="allowed")
    [denied] = running.noted(principal=READER.id, outcome="denied")
    assert (allowed.resource, denied.resource) == ("secrets/a/db", "secrets/b/db")
    assert denied.reason == "PERMISSION_MISSING"


def read(running: Running, path: str, principal: str) -> tuple[str, list[Event]]:
    request = weights_pb2.ReadFileRequest(manager_id="m", model_name="scorer", version="v1", path=path)
    caller = Principal(principal, "", principal, "", ADMINISTRATOR.grants)
    code = running.call(READ_FILE, caller, request)
    return code, running.events(principal=principal)


def test_a_download_is_one_event_however_many_messages_it_is(running: Running) -> None:
    code, [event] = read(running, "weights.bin", "key:whole")
    assert (code, event.outcome) == ("OK", "allowed")
    assert event.resource == "managers/m/models/scorer/versions/v1/files/weights.bin"


def test_a_download_of_several_files_is_about_the_version(running: Running) -> None:
    request = weights_pb2.ReadFileRequest(
        manager_id="m", model_name="scorer", version="v1", path="weights.bin", more_paths=["config.json"]
    )
    running.call(READ_FILE, Principal("key:many", "", "key:many", "", ADMINISTRATOR.grants), request)
    [event] = running.events(principal="key:many")
    assert event.resource == "managers/m/models/scorer/versions/v1"


def test_a_download_that_breaks_off_has_been_let_out(running: Running) -> None:
    code, [event] = read(running, "broken", "key:broken")
    assert (code, event.outcome) == ("NOT_FOUND", "allowed")


def test_a_download_that_never_began_has_failed(running: Running) -> None:
    code, [event] = read(running, "missing", "key:missing")
    assert (code, event.outcome, event.reason) == ("NOT_FOUND", "failed", "FILE_NOT_FOUND")


def test_the_event_of_a_download_is_durable_before_its_first_byte(running: Running) -> None:
    request = weights_pb2.ReadFileRequest(manager_id="m", model_name="scorer", version="v1", path="weights.bin")
    caller = Principal("key:first", "", "first", "", ADMINISTRATOR.grants)
    stub = weights_pb2_grpc.WeightsServiceStub(running.channel)
    stream = stub.ReadFile(request, metadata=running.tokens.metadata(SERVICE, caller), timeout=10)
    next(stream)
    assert len(running.events(principal=caller.id)) == 1
    stream.cancel()


def test_without_the_log_an_audited_call_is_refused_before_it_does_anything(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with closing(place.open()) as database:
        trail = place.trail(database)
        trail.start()
        running = Running(place, trail)
        stub = secrets_pb2_grpc.SecretServiceStub(running.channel)
        place.sql("CREATE TRIGGER full BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'full'); END")
        for _ in range(2):
            request = secrets_pb2.GetSecretRequest(name="a/db")
            with pytest.raises(grpc.RpcError) as caught:
                stub.GetSecret(request, metadata=running.tokens.metadata(SERVICE), timeout=10)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert reason_of(caught.value) == "AUDIT_UNAVAILABLE"
        # What needs no event still works.
        stub.ListSecrets(secrets_pb2.ListSecretsRequest(), metadata=running.tokens.metadata(SERVICE), timeout=10)
        place.sql("DROP TRIGGER full")
        eventually(lambda: running.call(GET_SECRET, READER, secrets_pb2.GetSecretRequest(name="a/db")) == "OK")
        running.channel.close()
        running.server.stop(grace=1)
        trail.close()
    assert place.problems() == []


def test_only_auth_reads_the_log_of_a_service(running: Running) -> None:
    request = audit_log_pb2.ListEventsRequest(page_size=5)
    stub = audit_log_pb2_grpc.AuditLogServiceStub(running.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListEvents(request, metadata=running.tokens.metadata(SERVICE), timeout=10)
    assert reason_of(caught.value) == "SERVICE_ONLY"
    for name, allowed in (("auth", True), ("models", False)):
        identity = ServiceIdentity.load(name, running.place.folder / "keys")
        with service_channel(running.address, SERVICE, identity) as channel:
            stub = audit_log_pb2_grpc.AuditLogServiceStub(channel)
            if allowed:
                assert len(stub.ListEvents(request).events) == 5
                assert all(report.is_valid for report in stub.VerifyChains(audit_log_pb2.VerifyChainsRequest()).chains)
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    stub.ListEvents(request)
                assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_what_changes_something_is_announced_before_and_what_reads_is_not() -> None:
    reads = {_name(method) for method in AUDITED if not changes(method) and not method.public}
    assert reads == {
        "SecretService/GetSecret",
        "WeightsService/ReadFile",
        "FileService/GetFile",
        "ModelService/VerifyVersion",
        "ManagerService/LoadModel",
        "ManagerService/VerifyModel",
        "MlArtifactService/GetMlArtifact",
        "AuditService/VerifyAuditLog",
    }
    assert not [method.path for method in METHODS.values() if changes(method) and not method.audited]


def test_an_intent_is_on_disk_when_the_servicer_begins(running: Running) -> None:
    create = METHODS["/strongroom.secrets.v1.SecretService/CreateSecret"]
    about = Principal("key:intent", "", "intent", "", ADMINISTRATOR.grants)
    assert running.call(create, about, secrets_pb2.CreateSecretRequest(name="a/intent", data={"a": "b"})) == "OK"
    assert b"secrets/a/intent" in running.trail._intents._file.read_bytes()
    assert running.trail._intents._open == {}, "and settled when it is over"


def test_nothing_of_a_payload_is_a_resource() -> None:
    """Whatever texts a request holds: names of things alone."""
    for method in AUDITED:
        assert method.request_type is not None
        request = method.request_type()
        for field in request.DESCRIPTOR.fields:
            if field.type == field.TYPE_STRING and not field.is_repeated:
                setattr(request, field.name, f"<{field.name}>")
        resource = resource_of(method, request)
        for word in ("password", "email", "token", "data", "description", "url", "body", "<name>"):
            if word == "<name>" and "{name}" in "".join(rule.resource for rule in method.rules):
                continue
            assert word not in resource, method.path


def test_what_was_made_is_named_by_its_id() -> None:
    create = METHODS["/strongroom.auth.v1.ApiKeyService/CreateApiKey"]
    assert create.request_type is not None
    answer = message_factory.GetMessageClass(descriptor(create).output_type)(id="01JD")
    assert resource_of(create, create.request_type(), answer) == "keys/01JD"
    put = METHODS["/strongroom.models.v1.FileService/PutFile"]
    request = files_pb2.PutFileRequest(manager_id="m", model_name="scorer", version="v1", path="a/b")
    assert resource_of(put, request) == "managers/m/models/scorer/versions/v1/files/a/b"


def test_the_address_is_what_the_gateway_added() -> None:
    assert address_of({"x-forwarded-for": "1.1.1.1, 2.2.2.2 , 10.0.0.1"}) == "10.0.0.1"
    assert address_of({"x-forwarded-for": "2001:DB8::1"}) == "2001:db8::1"
    assert address_of({"x-forwarded-for": "<script>"}) == address_of({}) == ""
