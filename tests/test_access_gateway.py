"""One model of permissions for models, secrets and keys, through the gateway over REST and gRPC."""

import urllib.request
from contextlib import closing
from urllib.parse import urlencode

import pytest

from strongroom.auth.v1 import access_pb2, access_pb2_grpc
from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2, weights_pb2_grpc
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc
from tests.callers import Caller, administrator
from tests.stack import Stack

MODEL = "managers/default/models/matrix"


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Takes a failure for an answer like any other."""

    def http_response(self, _request: object, response: object) -> object:
        return response


@pytest.fixture(scope="module")
def promoter(stack: Stack) -> Caller:
    """A key that may set any alias but `champion`, and read one secret."""
    grants = [
        {"effect": "allow", "permissions": ["models.read", "models.alias"], "resources": ["managers/default/**"]},
        {"effect": "deny", "permissions": ["models.alias"], "resources": ["managers/*/models/*/aliases/champion"]},
        {"effect": "allow", "permissions": ["secrets.read"], "resources": ["secrets/promotion/*"]},
    ]
    status, key = administrator(stack).rest("POST", "/api-keys", {"name": "promoter", "grants": grants})
    assert status == 201, key
    return Caller(stack, key["key"])


def explained(caller: Caller, principal: str, method: str, resource: str = "") -> dict[str, object]:
    """The explanation, the same over both protocols."""
    query = urlencode({"principal": principal, "method": method, "resource": resource})
    status, answer = caller.rest("GET", f"/api/v1/access:explain?{query}")
    assert status == 200, answer
    request = access_pb2.ExplainAccessRequest(principal=principal, method=method, resource=resource)
    same = caller.grpc(access_pb2_grpc.AccessServiceStub, "ExplainAccess", request)
    assert (same.allowed, same.explanation) == (answer["allowed"], answer["explanation"])
    return dict(answer)


@pytest.mark.row("B4")
@pytest.mark.row("B7")
def test_any_alias_but_champion(stack: Stack, promoter: Caller) -> None:
    assert explained(promoter, "self", "models.alias", f"{MODEL}/aliases/staging")["allowed"] is True
    answer = explained(promoter, "self", "models.alias", f"{MODEL}/aliases/champion")
    assert answer["allowed"] is False
    assert "denied by `deny models.alias on managers/*/models/*/aliases/champion`" in str(answer["explanation"])


@pytest.mark.row("B7")
def test_what_is_explained_is_what_happens(stack: Stack, promoter: Caller) -> None:
    """For models and secrets alike."""
    asked = [
        ("GetVersion", MODEL, models_pb2_grpc.ModelServiceStub, models_pb2.GetVersionRequest(
            manager_id="default", model_name="matrix", version="v1")),
        ("GetVersion", "managers/fraud/models/matrix", models_pb2_grpc.ModelServiceStub, models_pb2.GetVersionRequest(
            manager_id="fraud", model_name="matrix", version="v1")),
        ("CreateUpload", MODEL, weights_pb2_grpc.WeightsServiceStub, weights_pb2.CreateUploadRequest(
            manager_id="default", model_name="matrix")),
        ("GetSecret", "secrets/promotion/token", secrets_pb2_grpc.SecretServiceStub, secrets_pb2.GetSecretRequest(
            name="promotion/token")),
        ("GetSecret", "secrets/other/token", secrets_pb2_grpc.SecretServiceStub, secrets_pb2.GetSecretRequest(
            name="other/token")),
    ]  # fmt: skip
    outcomes = {}
    for method, resource, stub, request in asked:
        allowed = explained(promoter, "self", method, resource)["allowed"]
        outcomes[method, resource] = allowed
        assert (promoter.code(stub, method, request) != "PERMISSION_DENIED") is allowed, (method, resource)
    assert list(outcomes.values()) == [True, False, False, True, False]


def test_asking_about_others_takes_a_permission(stack: Stack, promoter: Caller) -> None:
    query = urlencode({"principal": "role:viewer", "method": "GetVersion", "resource": MODEL})
    status, problem = promoter.rest("GET", f"/api/v1/access:explain?{query}")
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    assert explained(administrator(stack), "role:viewer", "GetVersion", MODEL)["allowed"] is True
    assert explained(administrator(stack), "set:predict", "CommitUpload", MODEL)["allowed"] is False


@pytest.mark.row("S2.6")
def test_users_are_asked_about_by_id_and_by_address(stack: Stack) -> None:
    status, user = administrator(stack).rest(
        "POST", "/api/v1/users", {"email": "explained@example.org", "role": "analyst"}
    )
    assert status == 201, user
    for name in (f"user:{user['id']}", "user:explained@example.org", "user:Explained@EXAMPLE.org"):
        assert explained(administrator(stack), name, "GetVersion", MODEL)["allowed"] is True
        assert explained(administrator(stack), name, "CommitUpload", MODEL)["allowed"] is False
    administrator(stack).rest("PUT", f"/api/v1/users/{user['id']}", {"is_active": False})
    query = urlencode({"principal": name, "method": "GetVersion", "resource": MODEL})
    assert administrator(stack).rest("GET", f"/api/v1/access:explain?{query}")[1]["reason"] == "PRINCIPAL_NOT_FOUND"


def test_no_cache_keeps_an_answer(stack: Stack) -> None:
    for path in ("/api/v1/caller", "/health", "/nothing"):
        request = urllib.request.Request(f"{stack.url}{path}", headers={"X-API-Key": stack.admin_key})  # noqa: S310
        with closing(urllib.request.build_opener(_AnyStatus).open(request, timeout=10)) as answer:
            assert answer.headers["cache-control"] == "no-store", path


@pytest.mark.row("S1.8")
def test_a_predict_key_cannot_train(stack: Stack) -> None:
    """403, naming the missing permission."""
    administrating = administrator(stack)
    keys = {
        name: Caller(stack, administrating.rest("POST", "/api-keys", {"name": name, "permission_set": name})[1]["key"])
        for name in ("train", "predict")
    }
    request = weights_pb2.CreateUploadRequest(manager_id="default", model_name="trained")
    assert keys["train"].code(weights_pb2_grpc.WeightsServiceStub, "CreateUpload", request) == "OK"
    path = "/api/v1/managers/default/models/trained/versions/v1/files/weights"
    status, problem = keys["predict"].rest("PUT", path, {})
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    assert "models.write" in problem["detail"]
    answer = explained(keys["predict"], "self", "ml.train", "ml")
    assert (answer["allowed"], "nothing allows ml.train" in str(answer["explanation"])) == (False, True)
