"""Ledger and quotas through the gateway, over REST and gRPC, and over the life of processes."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from strongroom.auth.v1 import tokens_pb2, tokens_pb2_grpc, usage_pb2, usage_pb2_grpc
from strongroom.models.v1 import weights_pb2, weights_pb2_grpc
from tests.callers import Caller, administrator
from tests.stack import RunningStack, Stack

FILES = "/api/v1/managers/default/models"


def create_key(stack: Stack, name: str, permission_set: str = "full_access", **fields: Any) -> tuple[str, Caller]:
    """The principal of a new key, and whoever holds it."""
    wish = {"name": name, "permission_set": permission_set, **fields}
    status, made = administrator(stack).rest("POST", "/api-keys", wish)
    assert status == 201, made
    return f"key:{made['id']}", Caller(stack, made["key"])


def put(caller: Caller, path: str, body: bytes) -> tuple[int, Any, Any]:
    """PUT of a file: status, headers and decoded answer."""
    request = urllib.request.Request(f"{caller.stack.url}{path}", body, method="PUT")  # noqa: S310
    request.add_header("x-api-key", caller.credential)
    request.add_header("content-type", "application/octet-stream")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers, json.loads(refused.read())


def used(caller: Caller, principal: str) -> dict[str, tuple[float, float]]:
    """Requests and errors by class, over REST."""
    status, page = caller.rest("GET", f"/api/v1/usage?principal={principal}")
    assert status == 200, page
    return {line["usage_class"]: (line["requests"], line["errors"]) for line in page["usage"]}


def eventually(look: Any, wanted: Any, seconds: float = 10) -> None:
    """Returns once `look()` is what is wanted."""
    deadline = time.monotonic() + seconds
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == wanted


def away_from_the_end_of_the_hour() -> None:
    """Waits if a quota by the hour would begin anew within the test."""
    left = 3600 - time.time() % 3600
    if left < 15:
        time.sleep(left)


@pytest.mark.row("S1.9")
def test_an_upload_beyond_the_quota_is_429_and_says_when_to_come_back(stack: Stack) -> None:
    away_from_the_end_of_the_hour()
    quota = {"usage_class": "upload", "requests": 1, "per": "hour"}
    principal, caller = create_key(stack, "one upload", quotas=[quota])
    status, headers, _ = put(caller, f"{FILES}/quota-{principal[-6:]}/versions/v1/files/w.bin", b"weights")
    assert (status, headers["ratelimit-limit"], headers["ratelimit-remaining"]) == (201, "1", "0")

    status, headers, problem = put(caller, f"{FILES}/quota-{principal[-6:]}/versions/v2/files/w.bin", b"weights")
    assert (status, problem["reason"]) == (429, "QUOTA_EXHAUSTED")
    assert re.fullmatch(
        r"The quota of 1 request of class upload per hour is used up\. It begins anew at [0-9-]+ [0-9]+:00 UTC\.",
        problem["detail"],
    )
    seconds = int(headers["retry-after"])
    assert abs(seconds - (3600 - time.time() % 3600)) < 15
    assert (headers["ratelimit-limit"], headers["ratelimit-remaining"]) == ("1", "0")
    assert abs(int(headers["ratelimit-reset"]) - seconds) <= 1

    request = weights_pb2.CreateUploadRequest(manager_id="default", model_name="quota", version="v3")
    with pytest.raises(grpc.RpcError) as refused:
        caller.grpc(weights_pb2_grpc.WeightsServiceStub, "CreateUpload", request)
    told = rpc_status.from_call(refused.value)
    assert told is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert told.details[0].Unpack(info)
    assert told.details[1].Unpack(retry)
    assert (refused.value.code(), info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXHAUSTED")
    assert (info.metadata["usage_class"], info.metadata["per"]) == ("upload", "hour")
    assert abs(retry.retry_delay.seconds - seconds) < 15

    # Other classes go on, and what was refused stands in the ledger.
    assert caller.rest("GET", "/api/v1/secrets")[0] == 200
    eventually(lambda: used(administrator(stack), principal), {"upload": (3, 2), "other": (1, 0)})


@pytest.mark.row("S1.9")
def test_classes_have_quotas_of_their_own(stack: Stack) -> None:
    quotas = [{"usage_class": name, "requests": 2, "per": "day"} for name in ("other", "upload")]
    principal, caller = create_key(stack, "two of each", quotas=quotas)
    path = f"{FILES}/classes-{principal[-6:]}/versions"
    asked = [caller.rest("GET", "/api/v1/secrets")[0] for _ in range(3)]
    assert asked == [200, 200, 429]
    assert [put(caller, f"{path}/v{number}/files/w.bin", b"w")[0] for number in range(3)] == [201, 201, 429]


@pytest.mark.row("B7")
@pytest.mark.row("S2.5")
def test_one_ledger_counts_models_secrets_and_keys_whatever_the_credential(stack: Stack) -> None:
    principal, caller = create_key(stack, "everywhere")
    size = 300_000
    assert put(caller, f"{FILES}/ledger-{principal[-6:]}/versions/v1/files/w.bin", os.urandom(size))[0] == 201
    assert caller.rest("POST", "/api/v1/secrets", {"name": f"ledger/{principal[-6:]}", "data": {"a": "b"}})[0] == 201
    assert caller.rest("GET", "/api-keys")[0] == 200
    assert caller.rest("GET", "/api/v1/secrets/no-such-secret")[0] == 404
    exchanged = caller.grpc(tokens_pb2_grpc.TokenServiceStub, "CreateToken", tokens_pb2.CreateTokenRequest())
    bearer = Caller(stack, f"Bearer {exchanged.access_token}", "Authorization")
    assert bearer.rest("GET", "/api/v1/secrets")[0] == 200
    eventually(lambda: used(administrator(stack), principal), {"upload": (1, 0), "other": (5, 1)})

    request = usage_pb2.ListUsageRequest(principal="self")
    listed = bearer.grpc(usage_pb2_grpc.UsageServiceStub, "ListUsage", request).usage
    lines = {line.usage_class: line for line in listed}
    assert lines["upload"].bytes_received >= size
    assert {line.name for line in listed} == {"everywhere"}
    assert {line.day for line in listed} <= {(datetime.now(UTC) - timedelta(days=n)).date().isoformat() for n in (0, 1)}
    _, key = administrator(stack).rest("GET", f"/api-keys/{principal.removeprefix('key:')}")
    assert key["usage_count"] >= 6
    assert key["last_used_at"] >= key["created_at"]


@pytest.mark.row("B7")
def test_the_ledger_is_exported_to_any_http_client(stack: Stack) -> None:
    principal, caller = create_key(stack, '=HYPERLINK("http://evil.example")', "read_only")
    assert caller.rest("GET", f"{FILES}")[0] == 200
    eventually(lambda: used(administrator(stack), principal), {"other": (1, 0)})

    url, header = f"{stack.url}/api/v1/usage:export?principal={principal}", f"X-API-Key: {stack.admin_key}"
    command = ["curl", "--silent", "--fail", "--include", "--header", header, url]
    head, _, body = subprocess.run(command, check=True, capture_output=True, timeout=20).stdout.partition(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"content-type: text/csv; charset=utf-8; header=present" in head
    assert b'content-disposition: attachment; filename="usage.csv"' in head
    [row] = csv.DictReader(io.StringIO(body.decode(), newline=""))
    assert (row["principal"], row["requests"]) == (principal, "1")
    assert row["name"] == '\'=HYPERLINK("http://evil.example")'

    request = usage_pb2.ExportUsageRequest(principal=principal)
    with grpc.insecure_channel(stack.target) as channel:
        stub = usage_pb2_grpc.UsageServiceStub(channel)
        pieces = list(stub.ExportUsage(request, metadata=[("x-api-key", stack.admin_key)], timeout=20))
    assert b"".join(piece.data for piece in pieces) == body

    status, [line] = administrator(stack).rest("GET", f"/api/v1/usage:export?format=json&principal={principal}")
    assert (status, line["name"], line["requests"]) == (200, '=HYPERLINK("http://evil.example")', 1)


@pytest.mark.row("S1.9")
def test_nobody_sees_the_use_of_others_without_usage_read(stack: Stack) -> None:
    principal, caller = create_key(stack, "curious", "read_only")
    assert caller.rest("GET", f"{FILES}")[0] == 200
    eventually(lambda: used(caller, "self").get("other", (0, 0))[0] >= 1, True)
    status, page = caller.rest("GET", "/api/v1/usage?page_size=1000")
    assert (status, {line["principal"] for line in page["usage"]}) == (200, {principal})
    for path in ("/api/v1/usage?principal=key:another", "/api/v1/usage:export?principal=key:another"):
        status, problem = caller.rest("GET", path)
        assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
        assert "usage.read" in problem["detail"]
    stub, request = usage_pb2_grpc.UsageServiceStub, usage_pb2.ListUsageRequest(principal="key:another")
    assert caller.code(stub, "ListUsage", request) == "PERMISSION_DENIED"
    assert Caller(stack).rest("GET", "/api/v1/usage")[0] == 401


@pytest.mark.parametrize(
    "query", ["from_day=2026-02-30", "to_day=21.11.2026", "page_token=x", "page_size=1001", "from_day=9999-12-31"]
)
def test_a_query_that_makes_no_sense_is_refused(stack: Stack, query: str) -> None:
    assert administrator(stack).rest("GET", f"/api/v1/usage?{query}")[0] == 400


def test_services_alone_add_use(stack: Stack) -> None:
    request = usage_pb2.RecordUseRequest(batch_id="0" * 26)
    assert administrator(stack).code(usage_pb2_grpc.UsageServiceStub, "RecordUse", request) != "OK"
    assert administrator(stack).rest("POST", "/api/v1/usage:record", {})[0] == 404


@pytest.mark.slow
@pytest.mark.row("S1.9")
def test_a_clean_stop_loses_nothing_and_a_killed_service_its_last_second(tmp_path: Path) -> None:
    running = RunningStack(tmp_path / "data", STRONGROOM_RATE_LIMIT="off")
    with running as stack:
        principal, caller = create_key(stack, "counted")
        for _ in range(20):
            assert caller.rest("GET", "/api/v1/secrets")[0] == 200
            assert caller.rest("GET", FILES)[0] == 200
            assert caller.rest("GET", "/api-keys")[0] == 200
    with running as stack:
        assert used(administrator(stack), principal) == {"other": (60, 0)}
        again = Caller(stack, caller.credential)
        for _ in range(5):
            assert again.rest("GET", FILES)[0] == 200
        time.sleep(2)
        os.kill(stack.state["pids"]["models"], signal.SIGKILL)
        assert used(administrator(stack), principal) == {"other": (65, 0)}
