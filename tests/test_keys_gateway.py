"""API keys and tokens through the gateway, over REST and gRPC alike."""

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from strongroom.auth.v1 import api_keys_pb2 as keys_pb
from strongroom.auth.v1 import api_keys_pb2_grpc
from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2, weights_pb2_grpc
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc
from tests.stack import Stack
from tests.uploads import Uploads

# What a call may answer, in both protocols.
QUOTA = {"usage_class": "predict", "requests": 1000, "per": "day"}
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

    def ask(self, stub: Any, method: str, request: Any) -> Any:
        """The answer over gRPC."""
        with grpc.insecure_channel(self.stack.target) as channel:
            return getattr(stub(channel), method)(
                request, metadata=[(self.header.lower(), self.credential)], timeout=10
            )

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


def _upload(version: str) -> weights_pb2.CreateUploadRequest:
    return weights_pb2.CreateUploadRequest(manager_id="default", model_name="shared", version=version)


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
    status, _ = maker.rest("POST", "/api-keys/", {"name": "as much", "permissions": ["models.read"]})
    assert status == 201


@pytest.mark.row("S1.8")
def test_a_key_that_may_predict_may_not_write_a_model_and_is_told_what_is_missing(admin: Caller) -> None:
    predict, _ = create(admin, permission_set="predict")
    train, _ = create(admin, permission_set="train")
    assert predict.reads_models() == OK
    assert predict.writes_models() == DENIED
    status, problem = predict.rest("PUT", "/api/v1/managers/default/models/shared/versions/v1/files/x", {})
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    assert "Permission models.write on managers/default/models/shared is missing" in problem["detail"]
    assert train.grpc(weights_pb2_grpc.WeightsServiceStub, "CreateUpload", _upload("trained")) == "OK"
    assert predict.grpc(weights_pb2_grpc.WeightsServiceStub, "CreateUpload", _upload("predicted")) == DENIED[1]


@pytest.mark.row("S2.2")
@pytest.mark.row("S2.3")
@pytest.mark.row("S2.5")
def test_a_key_over_its_life(admin: Caller) -> None:
    """Every method on keys, over REST and over gRPC, on one key."""
    fields = {"name": "life", "description": "of a key", "permission_set": "predict", "scopes": ["managers/default/**"]}
    status, made = admin.rest("POST", "/api-keys/", fields | {"expires_in_days": 10})
    assert status == 201
    assert fields.items() <= made.items()
    assert (made["is_active"], made["usage_count"], made["version"], len(made["key_prefix"])) == (True, 0, 1, 8)
    path, stub = f"/api-keys/{made['id']}", api_keys_pb2_grpc.ApiKeyServiceStub
    assert admin.rest("GET", path)[1]["key_prefix"] == made["key_prefix"]
    assert admin.ask(stub, "GetApiKey", keys_pb.GetApiKeyRequest(id=made["id"])).name == "life"
    status, changed = admin.rest("PUT", path, {"description": "changed", "quotas": [QUOTA]})
    assert (status, changed["name"], changed["description"], changed["quotas"]) == (200, "life", "changed", [QUOTA])
    assert admin.ask(stub, "UpdateApiKey", keys_pb.UpdateApiKeyRequest(id=made["id"], name="later")).name == "later"
    status, longer = admin.rest("POST", f"{path}/extend", {"days": 5})
    assert (status, longer["expires_at"] > made["expires_at"]) == (200, True)
    assert admin.ask(stub, "ExtendApiKey", keys_pb.ExtendApiKeyRequest(id=made["id"], days=5)).is_active
    for name in ("active_only=true", "page_size=1000", f"owner={made['owner']}"):
        status, listed = admin.rest("GET", f"/api-keys/?{name}")
        assert (status, made["id"] in {key["id"] for key in listed["api_keys"]}) == (200, True)
    request = keys_pb.ListApiKeysRequest(owner="user:nobody")
    assert not admin.ask(stub, "ListApiKeys", request).api_keys
    status, revoked = admin.rest("POST", f"{path}/revoke", {"cascade": True})
    assert (status, revoked["is_active"]) == (200, False)
    assert "key" not in revoked
    assert admin.rest("PUT", path, {"name": "x"})[1]["reason"] == "API_KEY_REVOKED"
    assert admin.rest("POST", f"{path}/extend", {"days": 5})[1]["reason"] == "API_KEY_REVOKED"
    # What the path names is what is meant, whatever the body says.
    other, kept = create(admin, permission_set="read_only")
    assert admin.rest("PUT", path, {"id": kept["id"], "name": "x"})[0] == 400
    assert other.reads_models() == OK


@pytest.mark.row("S2.3")
def test_ones_own_keys_and_no_others(admin: Caller) -> None:
    reader, key = create(admin, permission_set="read_only")
    _, other = create(admin, permission_set="read_only")
    stub = api_keys_pb2_grpc.ApiKeyServiceStub
    assert [shown["id"] for shown in reader.rest("GET", "/api-keys")[1]["api_keys"]] == [key["id"]]
    assert [shown.id for shown in reader.ask(stub, "ListApiKeys", keys_pb.ListApiKeysRequest()).api_keys] == [key["id"]]
    assert reader.rest("GET", f"/api-keys/{key['id']}")[0] == 200
    for path in (f"/api-keys/{other['id']}", "/api-keys/01ARZ3NDEKTSV4RRFFQ69G5FAV"):
        status, problem = reader.rest("GET", path)
        assert (status, problem["reason"]) == (404, "API_KEY_NOT_FOUND")
        assert reader.rest("POST", f"{path}/revoke", {})[0] == 404
        assert reader.rest("PUT", path, {"name": "mine"})[0] == 403
    assert reader.grpc(stub, "RotateApiKey", keys_pb.RotateApiKeyRequest(id=other["id"])) == "NOT_FOUND"
    # Whoever has a key may give it up.
    assert reader.rest("POST", f"/api-keys/{key['id']}/revoke", {})[0] == 200
    assert reader.reads_models() == UNKNOWN


@pytest.mark.row("S1.10")
@pytest.mark.row("S3.6")
def test_a_rotated_key_works_with_both_secrets_until_the_grace_ends(admin: Caller) -> None:
    old, key = create(admin, permission_set="read_only")
    status, rotated = old.rest("POST", f"/api-keys/{key['id']}/rotate", {"grace_seconds": 3})
    ends = time.monotonic() + 3
    assert (status, rotated["id"], rotated["version"]) == (200, key["id"], 2)
    new = Caller(admin.stack, "X-API-Key", rotated["key"])
    assert new.reads_models() == OK
    if time.monotonic() < ends - 1:
        assert old.reads_models() == OK
    while time.monotonic() <= ends:
        time.sleep(0.1)
    assert old.reads_models() == UNKNOWN
    assert new.reads_models() == OK
    request = keys_pb.RotateApiKeyRequest(id=key["id"], grace_seconds=0)
    third = new.ask(api_keys_pb2_grpc.ApiKeyServiceStub, "RotateApiKey", request)
    assert new.reads_models() == UNKNOWN
    assert Caller(admin.stack, "X-API-Key", third.key).reads_models() == OK


@pytest.mark.row("S3.6")
def test_a_token_ends_with_the_secret_it_was_made_of(admin: Caller) -> None:
    old, key = create(admin, permission_set="read_only")
    _, token = old.rest("POST", "/api/v1/tokens", {})
    bearer = Caller(admin.stack, "Authorization", f"Bearer {token['access_token']}")
    assert bearer.reads_models() == OK
    old.rest("POST", f"/api-keys/{key['id']}/rotate", {"grace_seconds": 0})
    deadline = time.monotonic() + 8
    while bearer.reads_models() != UNKNOWN:
        assert time.monotonic() < deadline, "the token of a secret that was rotated away still works"
        time.sleep(0.2)


@pytest.mark.row("S3.6")
def test_the_ages_of_keys_are_reported(admin: Caller) -> None:
    reader, key = create(admin, permission_set="read_only")
    for policy in (90, 180, 365):
        status, report = admin.rest("GET", f"/api-keys/age-report?max_age_days={policy}&page_size=1000")
        assert (status, report["max_age_days"], report["overdue"]) == (200, policy, 0)
        [age] = [age for age in report["keys"] if age["id"] == key["id"]]
        assert (age["age_days"], age["status"], age["key_prefix"]) == (0, "ok", key["key_prefix"])
    request = keys_pb.ReportKeyAgesRequest(page_size=1)
    assert len(admin.ask(api_keys_pb2_grpc.ApiKeyServiceStub, "ReportKeyAges", request).keys) == 1
    assert reader.rest("GET", "/api-keys/age-report")[0] == 403


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
