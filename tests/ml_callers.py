"""What tests of training through the gateway share."""

import time
from typing import Any

from strongroom.auth.v1 import api_keys_pb2, api_keys_pb2_grpc
from tests.callers import Caller, administrator
from tests.catalog import fresh
from tests.ml_jobs import CASES, ENDED, WEATHER
from tests.stack import Stack

TRAINING = {"columns": WEATHER, "data": CASES}


def with_set(stack: Stack, permission_set: str) -> Caller:
    """Somebody whose key has a permission set."""
    request = api_keys_pb2.CreateApiKeyRequest(name=fresh("key"), permission_set=permission_set)
    made = administrator(stack).grpc(api_keys_pb2_grpc.ApiKeyServiceStub, "CreateApiKey", request)
    return Caller(stack, made.key)


def config(admin: Caller, data: dict[str, Any] | None = None, **fields: str) -> str:
    """The id of a new config."""
    status, made = admin.rest("POST", "/api/v1/configs", {"name": fresh("config"), "data": data or {}, **fields})
    assert status == 201, made
    return str(made["id"])


def ended(admin: Caller, job_id: str) -> dict[str, Any]:
    """The job, once it has."""
    deadline = time.monotonic() + 90
    while True:
        status, job = admin.rest("GET", f"/api/v1/jobs/{job_id}")
        assert status == 200, job
        if job["status"] in ENDED:
            shown: dict[str, Any] = job
            return shown
        assert time.monotonic() < deadline, job
        time.sleep(0.1)


def trained(admin: Caller, data: dict[str, Any]) -> dict[str, Any]:
    """A trained model: what `$train` answered, and its config."""
    config_id = config(admin, data)
    status, submitted = admin.rest("POST", "/api/v1/ml/$train", {"config_id": config_id, "data": TRAINING})
    assert status == 202
    assert ended(admin, submitted["job_id"])["status"] == "completed"
    return {**submitted, "config_id": config_id}
