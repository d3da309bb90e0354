"""API keys and tokens through the gateway, over REST and gRPC alike."""

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2, weights_pb2_grpc
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc
from tests.stack import Stack
from tests.uploads import Uploads

# What a call may answer, in both protocols.
OK, DENIED, UNKNOWN = (200, "OK"), (403, "PERMISSION_DENIED"), (401, "UNAUTHENTICATED")


@dataclass
class Caller:
    """Someone with a credential, who asks the same over both protocols and hears the same."""

    stack: Stack
    header: str
    credential: str

    def rest(self, method: str, path: str, body: Any = None) -> tuple[int, dict]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.stack.url}{path}", data, method=method)  # noqa: S310
        request.add_header(self.header, self.credential)
        request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            problem = json.loads(error.read())
            return error.code if problem["status"] == error.code else 0, problem

    def grpc(self, stub: Any, method: str, request: Any) -> str:
        with grpc.insecure_channel(self.stack.target) as channel:
            try:
                metadata = [(self.header.lower(), self.credential)]
                getattr(stub(channel), method)(request, metadata=metadata, timeout=10)
            except grpc.RpcError as error:
                return error.code().name
            return "OK"

    def reads_models(self) -> tuple[int, str]:
        status, _ = self.rest("GET", "/api/v1/managers/default/models/shared/versions/v1")
        request = models_pb2.GetVersionRequest(manager_id="default", model_name="shared", version="v1")
        return status, self.grpc(models_pb2_grpc.ModelServiceStub, "GetVersion", request)

    def writes_models(self) -> tuple[int, str]:
        status, _ = self.rest("PUT", "/api/v1/managers/default/models/shared/versions/v1/files/x", {})
        request = weights_pb2.CreateUploadRequest(manager_id="default", model_name="shared", version="mine")
        return status, self.grpc(weights_pb2_grpc.WeightsServiceStub, "CreateUpload", request)

    def reads_secrets(self) -> tuple[int, str]:
        status, _ = self.rest("GET", "/api/v1/secrets/shared/db")
        request = secrets_pb2.GetSecretRequest(name="shared/db")
        return status, self.grpc(secrets_pb2_grpc.SecretServiceStub, "GetSecret", request)

    def manages_keys(self) -> int:
        return self.rest("POST", "/api-keys", {"name": "mine", "permission_set": "read_only"})[0]


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Caller:
    """The administrator, in whose stack a model and a secret stand."""
    admin = Caller(stack, "X-API-Key", stack.admin_key)
    with grpc.insecure_channel(stack.target) as channel:
        uploads = Uploads(channel, stack.admin_key)
        if not uploads.exists("shared", "v1"):
            uploads.push("shared", "v1", {"weights.bin": b"weights"})
    admin.rest("PUT", "/api/v1/secrets/shared/db", {"data": {"port": 5432}, "allow_missing": True})
    return admin


def create(admin: Caller, **fields: Any) -> tuple[Caller, dict]:
    status, key = admin.rest("POST", "/api-keys/", {"name": "test"} | fields)
    assert status == 201, key
    return Caller(admin.stack, "X-API-Key", key["key"]), key


@pytest.mark.row("S2.2")
def test_a_key_that_may_read_models_may_nothing_else(admin: Caller) -> None:
    reader, key = create(admin, permission_set="read_only", description="reads")
    assert key["key"].startswith(f"sr_{key['key_prefix']}")
    assert reader.reads_models() == OK
    assert reader.writes_models() == DENIED
    assert reader.reads_secrets() == DENIED
    assert reader.manages_keys() == 403


@pytest.mark.row("S2.4")
def test_a_key_of_another_set_may_what_that_says(admin: Caller) -> None:
    workflow, _ = create(admin, permission_set="prefect_workflows")
    assert workflow.reads_models() == OK
    assert workflow.reads_secrets() == OK
    assert workflow.manages_keys() == 403


@pytest.mark.row("S2.5")
def test_a_revoked_key_fails_at_the_next_request(admin: Caller) -> None:
    reader, key = create(admin, permission_set="read_only")
    assert reader.reads_models() == OK
    status, revoked = admin.rest("POST", f"/api-keys/{key['id']}/revoke", {})
    assert (status, revoked["is_active"]) == (200, False)
    assert reader.reads_models() == UNKNOWN


def test_a_key_may_be_limited_to_one_model(admin: Caller) -> None:
    scoped, _ = create(admin, permissions=["models.read"], scopes=["managers/default/models/other"])
    assert scoped.reads_models() == DENIED
    status, listing = scoped.rest("GET", "/api/v1/managers/default/models")
    assert (status, listing["models"]) == (200, [])


def test_a_key_is_shown_once(admin: Caller) -> None:
    _, key = create(admin, permission_set="read_only")
    status, shown = admin.rest("GET", f"/api-keys/{key['id']}")
    assert (status, shown["id"]) == (200, key["id"])
    assert key["key"] not in json.dumps(shown)
    assert key["key"] not in json.dumps(admin.rest("GET", "/api-keys?page_size=1000"))


def test_the_permission_sets_are_not_taken_for_a_key(admin: Caller) -> None:
    status, answer = admin.rest("GET", "/api-keys/permission-sets")
    assert status == 200
    names = {item["name"] for item in answer["permission_sets"]}
    assert {"read_only", "training_pipeline", "prefect_workflows", "full_access", "train", "predict"} <= names


@pytest.mark.row("S2.4")
def test_an_unknown_set_and_an_empty_list_are_400(admin: Caller) -> None:
    for fields in ({"permission_set": "everything"}, {"permissions": []}, {}):
        status, problem = admin.rest("POST", "/api-keys/", {"name": "test"} | fields)
        assert (status, problem["status_code"]) == (400, 400)
        assert problem["reason"] in ("PERMISSION_SET_UNKNOWN", "PERMISSIONS_REQUIRED")


@pytest.mark.row("S2.1")
def test_an_access_token_is_worth_as_much_as_its_key(admin: Caller) -> None:
    reader, key = create(admin, permission_set="read_only")
    status, token = reader.rest("POST", "/api/v1/tokens", {})
    assert (status, token["token_type"], token["expires_in"]) == (201, "Bearer", 600)
    bearer = Caller(admin.stack, "Authorization", f"Bearer {token['access_token']}")
    assert bearer.reads_models() == OK
    assert bearer.reads_secrets() == DENIED
    assert bearer.rest("GET", "/api/v1/caller")[1]["principal"] == f"key:{key['id']}"
    # It does not outlive its key by more than the five seconds between two looks at the revocations.
    admin.rest("POST", f"/api-keys/{key['id']}/revoke", {})
    deadline = time.monotonic() + 8
    while bearer.reads_models() != UNKNOWN:
        assert time.monotonic() < deadline, "the token of a revoked key still works"
        time.sleep(0.2)


def test_a_key_gives_away_no_more_than_it_has(admin: Caller) -> None:
    maker, _ = create(admin, permissions=["keys.write", "models.read"])
    status, problem = maker.rest("POST", "/api-keys/", {"name": "more", "permission_set": "full_access"})
    assert (status, problem["reason"]) == (403, "GRANT_NOT_COVERED")
    status, _ = maker.rest("POST", "/api-keys/", {"name": "as much", "permission_set": "read_only"})
    assert status == 201


def test_numbers_in_secrets_keep_their_shape_over_rest(admin: Caller) -> None:
    status, secret = admin.rest("GET", "/api/v1/secrets/shared/db")
    assert (status, repr(secret["data"]["port"])) == (200, "5432")


def test_health_and_info_are_public(stack: Stack) -> None:
    """S0.9, S1.6: what anyone may ask."""
    nobody = Caller(stack, "X-Nothing", "x")
    status, health = nobody.rest("GET", "/health")
    assert (status, health["status"], health["checks"]["database"]) == (200, "healthy", "healthy")
    status, info = nobody.rest("GET", "/")
    assert status == 200
    assert {"name", "version", "description", "docs_url"} <= info.keys()
