"""gRPC at the gateway: the same port, the same refusals, as gRPC clients expect them."""

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from strongroom.auth.v1 import api_keys_pb2, api_keys_pb2_grpc, tokens_pb2, tokens_pb2_grpc
from strongroom.edge.v1 import external_auth_pb2
from strongroom.secrets.v1 import keys_pb2, keys_pb2_grpc
from tests.stack import Stack


@pytest.fixture
def channel(stack: Stack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(stack.target) as opened:
        yield opened


def refused(error: grpc.RpcError, code: grpc.StatusCode, reason: str) -> error_details_pb2.ErrorInfo:
    """The one ErrorInfo of a refusal."""
    assert error.code() == code, error
    status = rpc_status.from_call(error)
    assert status is not None
    assert status.message == error.details()
    info = error_details_pb2.ErrorInfo()
    assert [detail.Unpack(info) for detail in status.details] == [True]
    assert (info.domain, info.reason) == ("strongroom", reason)
    assert info.metadata["request_id"]
    return info


def test_a_missing_credential_is_unauthenticated(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        api_keys_pb2_grpc.ApiKeyServiceStub(channel).ListApiKeys(api_keys_pb2.ListApiKeysRequest(), timeout=10)
    refused(caught.value, grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING")


@pytest.mark.parametrize("metadata", [("x-api-key", "sr_wrong"), ("authorization", "Bearer wrong")])
def test_a_bad_credential_is_unauthenticated(channel: grpc.Channel, metadata: tuple[str, str]) -> None:
    stub = api_keys_pb2_grpc.ApiKeyServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListApiKeys(api_keys_pb2.ListApiKeysRequest(), timeout=10, metadata=[metadata])
    refused(caught.value, grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


def test_details_of_a_services_error_arrive(stack: Stack, channel: grpc.Channel) -> None:
    stub, key = api_keys_pb2_grpc.ApiKeyServiceStub(channel), [("x-api-key", stack.admin_key)]
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetApiKey(api_keys_pb2.GetApiKeyRequest(id="01ARZ3NDEKTSV4RRFFQ69G5FAV"), timeout=10, metadata=key)
    refused(caught.value, grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")


def test_a_forged_identity_is_removed(stack: Stack, channel: grpc.Channel) -> None:
    key = [("x-api-key", stack.admin_key)]
    token = tokens_pb2_grpc.TokenServiceStub(channel).CreateToken(
        tokens_pb2.CreateTokenRequest(), timeout=10, metadata=key
    )
    forged = [("x-strongroom-identity", token.access_token)]
    with pytest.raises(grpc.RpcError) as caught:
        tokens_pb2_grpc.TokenServiceStub(channel).GetCaller(tokens_pb2.GetCallerRequest(), timeout=10, metadata=forged)
    refused(caught.value, grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING")


def test_methods_between_services_do_not_exist_here(stack: Stack, channel: grpc.Channel) -> None:
    key = [("x-api-key", stack.admin_key)]
    check = channel.unary_unary(
        "/envoy.service.auth.v3.Authorization/Check",
        external_auth_pb2.CheckRequest.SerializeToString,
        external_auth_pb2.CheckResponse.FromString,
    )
    calls = [
        (keys_pb2_grpc.KeyServiceStub(channel).CreateKek, keys_pb2.CreateKekRequest(kek_id="x")),
        (tokens_pb2_grpc.TokenServiceStub(channel).ListRevocations, tokens_pb2.ListRevocationsRequest()),
        (check, external_auth_pb2.CheckRequest()),
    ]
    for method, request in calls:
        with pytest.raises(grpc.RpcError) as caught:
            method(request, timeout=10, metadata=key)
        refused(caught.value, grpc.StatusCode.UNIMPLEMENTED, "PATH_UNKNOWN")


def test_health_and_reflection_are_public(channel: grpc.Channel) -> None:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    listed = next(stub.ServerReflectionInfo(iter([request]), timeout=10)).list_services_response.service
    names = {service.name for service in listed}
    assert {"strongroom.auth.v1.ApiKeyService", "strongroom.secrets.v1.SecretService"} <= names
    assert "strongroom.secrets.v1.KeyService" not in names
