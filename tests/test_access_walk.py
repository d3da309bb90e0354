"""Walks every method, over gRPC and REST: no credential, a bad one, and one that lacks the permission."""

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api import annotations_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from services.shared.tokens import SERVICES, ServiceIdentity
from strongroom.auth.v1 import api_keys_pb2, api_keys_pb2_grpc
from strongroom.edge.v1 import external_auth_pb2
from strongroom.options.v1 import options_pb2
from tests.serving import ADMINISTRATOR, make_identities, make_token_maker
from tests.stack import Stack
from tests.test_protos import METHODS

Metadata = list[tuple[str, str]]


def _rules(method: MethodDescriptor) -> list[options_pb2.AccessRule]:
    return list(method.GetOptions().Extensions[options_pb2.access])


def _binding(method: MethodDescriptor) -> tuple[str, str]:
    """HTTP verb and path, each field replaced by `x`."""
    http = method.GetOptions().Extensions[annotations_pb2.http]
    verb = http.WhichOneof("pattern")
    return verb.upper(), re.sub(r"\{[^}]*\}", "x", getattr(http, verb))


SERVICE_ONLY = [method for method in METHODS if any(rule.services for rule in _rules(method))]
PUBLIC = [method for method in METHODS if any(rule.public for rule in _rules(method))]
GUARDED = [method for method in METHODS if method not in SERVICE_ONLY and method not in PUBLIC]
GUARDED_REST = [method for method in GUARDED if method.GetOptions().HasExtension(annotations_pb2.http)]
PERMISSIONED = [method for method in GUARDED if any(rule.permission for rule in _rules(method))]


def _name(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}.{method.name}"


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def call(target: str, method: MethodDescriptor, metadata: Metadata) -> grpc.StatusCode:
    """Calls the method with an empty request; the code it answers."""
    request_class = message_factory.GetMessageClass(method.input_type)
    response_class = message_factory.GetMessageClass(method.output_type)
    with grpc.insecure_channel(target) as channel:
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        make: Callable[..., Any] = getattr(channel, kind)
        invoke = make(_path(method), request_class.SerializeToString, response_class.FromString)
        request = iter([request_class()]) if method.client_streaming else request_class()
        try:
            answer = invoke(request, metadata=metadata, timeout=10)
            if method.server_streaming:
                list(answer)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def rest(url: str, verb: str, path: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
    """Status, content type and body of a REST call with an empty JSON object where a body belongs."""
    body = b"{}" if verb in ("POST", "PUT") else None
    request = urllib.request.Request(f"{url}{path}", body, headers | {"content-type": "application/json"}, method=verb)  # noqa: S310
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=10)  # noqa: S310
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read()
    with answer:
        return answer.status, answer.headers["content-type"], answer.read()


@pytest.fixture(scope="module")
def keys(stack: Stack) -> dict[str, str]:
    """Two valid keys, by the one permission each has."""
    with grpc.insecure_channel(stack.target) as channel:
        stub = api_keys_pb2_grpc.ApiKeyServiceStub(channel)
        made = {}
        for permission in ("models.read", "secrets.read"):
            request = api_keys_pb2.CreateApiKeyRequest(name=f"walk {permission}", permissions=[permission])
            made[permission] = stub.CreateApiKey(request, metadata=[("x-api-key", stack.admin_key)], timeout=10).key
        return made


def powerless(keys: dict[str, str], method: MethodDescriptor) -> str:
    """The key that has nothing to do with the method."""
    about_models = any(rule.permission.startswith("models.") for rule in _rules(method))
    return keys["secrets.read" if about_models else "models.read"]


def identity_token(stack: Stack) -> str:
    """What the gateway gets from auth for the administrator's key, to pass on to the models service alone."""
    headers = {"x-api-key": stack.admin_key}
    http = external_auth_pb2.HttpRequest(path="/strongroom.models.v1.ModelService/ListModels", headers=headers)
    attributes = external_auth_pb2.AttributeContext(request=external_auth_pb2.Request(http=http))
    with grpc.insecure_channel(f"127.0.0.1:{stack.state['ports']['auth']}") as channel:
        check = channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            external_auth_pb2.CheckRequest.SerializeToString,
            external_auth_pb2.CheckResponse.FromString,
        )
        answer = check(external_auth_pb2.CheckRequest(attributes=attributes), timeout=10)
    return answer.ok_response.headers[0].header.value


BAD_CREDENTIALS: dict[str, dict[str, str]] = {
    "no credential": {},
    "an unknown key": {"x-api-key": "sr_unknown0" + "A" * 40},
    "an empty key": {"x-api-key": ""},
    "a bearer that is no token": {"authorization": "Bearer nonsense"},
    "a basic credential": {"authorization": "Basic YWRtaW46YWRtaW4="},
    "an unsigned token": {"authorization": "Bearer eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.eyJzdWIiOiJrZXk6YSJ9."},
}


def test_a_token_for_another_audience_is_a_bad_credential_like_any_other(stack: Stack) -> None:
    """401, never 403: who presents it is nobody."""
    token = identity_token(stack)
    for verb, path in map(_binding, GUARDED_REST):
        status, _, body = rest(stack.url, verb, path, {"authorization": f"Bearer {token}"})
        assert (status, b"CREDENTIAL_INVALID" in body) == (401, True), (path, body)


@pytest.mark.parametrize("credential", BAD_CREDENTIALS)
@pytest.mark.parametrize("method", GUARDED, ids=_name)
def test_grpc_without_a_valid_credential_is_unauthenticated(
    stack: Stack, method: MethodDescriptor, credential: str
) -> None:
    assert call(stack.target, method, list(BAD_CREDENTIALS[credential].items())) == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("credential", BAD_CREDENTIALS)
@pytest.mark.parametrize("method", GUARDED_REST, ids=_name)
def test_rest_without_a_valid_credential_is_401(stack: Stack, method: MethodDescriptor, credential: str) -> None:
    status, content_type, body = rest(stack.url, *_binding(method), BAD_CREDENTIALS[credential])
    assert (status, content_type) == (401, "application/problem+json"), body


@pytest.mark.parametrize("method", PERMISSIONED, ids=_name)
def test_grpc_without_the_permission_is_denied(stack: Stack, method: MethodDescriptor, keys: dict[str, str]) -> None:
    key = powerless(keys, method)
    assert call(stack.target, method, [("x-api-key", key)]) == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("method", [m for m in PERMISSIONED if m in GUARDED_REST], ids=_name)
def test_rest_without_the_permission_is_403(stack: Stack, method: MethodDescriptor, keys: dict[str, str]) -> None:
    status, content_type, body = rest(stack.url, *_binding(method), {"x-api-key": powerless(keys, method)})
    assert (status, content_type) == (403, "application/problem+json"), body
    assert b"PERMISSION_MISSING" in body


@pytest.mark.parametrize("method", SERVICE_ONLY, ids=_name)
def test_methods_between_services_are_not_routed(stack: Stack, method: MethodDescriptor) -> None:
    code = call(stack.target, method, [("x-api-key", stack.admin_key)])
    assert code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize("method", PUBLIC, ids=_name)
def test_public_methods_need_no_credential(stack: Stack, method: MethodDescriptor) -> None:
    """They judge an empty request, whoever sends it."""
    judged = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
    if method.name == "SignInWithAws":
        judged = {grpc.StatusCode.PERMISSION_DENIED}  # here nobody's AWS identity is mapped
    assert call(stack.target, method, []) in judged


@pytest.mark.parametrize("method", GUARDED, ids=_name)
def test_forged_identity_headers_are_worth_nothing(stack: Stack, method: MethodDescriptor, tmp_path: Path) -> None:
    """Neither through the gateway, which strips them, nor at the service, which knows whose signature counts."""
    service = method.containing_service.full_name.split(".")[1]
    direct = f"127.0.0.1:{stack.state['ports'][service]}"
    own_key = make_token_maker().token(service, ADMINISTRATOR)
    as_service = ServiceIdentity.load("auth", make_identities(tmp_path)).token(service)
    for token in (own_key, as_service, "x"):
        for target in (stack.target, direct):
            assert call(target, method, [("x-strongroom-identity", token)]) == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("method", GUARDED + SERVICE_ONLY, ids=_name)
def test_a_service_reached_around_the_gateway_wants_an_identity(stack: Stack, method: MethodDescriptor) -> None:
    package = method.containing_service.full_name.split(".")[1]
    # The audit log is served by each of them.
    for service in SERVICES if package == "audit" else [package]:
        direct = f"127.0.0.1:{stack.state['ports'][service]}"
        assert call(direct, method, []) == grpc.StatusCode.UNAUTHENTICATED
        assert call(direct, method, [("x-api-key", stack.admin_key)]) == grpc.StatusCode.UNAUTHENTICATED
