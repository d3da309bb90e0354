"""The audit log through the gateway, over REST and gRPC alike, of all services together."""

import json
import os
import signal
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from strongroom.auth.v1 import audit_pb2 as pb
from strongroom.auth.v1 import audit_pb2_grpc
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc
from tests.audit_trails import eventually
from tests.auth_installation import reason_of
from tests.callers import Caller, administrator
from tests.serving import wait_healthy
from tests.stack import RunningStack, Stack
from tests.uploads import Uploads

AUDIT = audit_pb2_grpc.AuditServiceStub
# Looked for where it must not be.
CANARY = "canary-correct-horse-9000"


@pytest.fixture
def admin(stack: Stack) -> Caller:
    return administrator(stack)


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def listed(caller: Caller, **fields: Any) -> list[dict[str, Any]]:
    """Events by REST; by gRPC they are the same ones."""
    query = "&".join(f"{name}={value}" for name, value in fields.items())
    status, body = caller.rest("GET", f"/api/v1/audit/events?{query}")
    assert status == 200, body
    by_grpc = caller.grpc(AUDIT, "ListAuditEvents", pb.ListAuditEventsRequest(**fields))
    ids = [event["id"] for event in body.get("events", [])]
    assert [event.id for event in by_grpc.events if event.id <= max(ids, default="")] == ids
    return body.get("events", [])


@pytest.mark.row("S1.9")
def test_what_somebody_did_is_listed_with_who_and_what(stack: Stack, admin: Caller) -> None:
    name = unique("audit/db")
    assert admin.rest("POST", "/api/v1/secrets", {"name": name, "data": {"password": CANARY}})[0] == 201
    assert admin.rest("GET", f"/api/v1/secrets/{name}")[0] == 200
    admin.grpc(secrets_pb2_grpc.SecretServiceStub, "GetSecret", secrets_pb2.GetSecretRequest(name=name))
    second, first, created = listed(admin, resource=f"secrets/{name}")
    assert [event["method"].rpartition("/")[2] for event in (created, first, second)] == [
        "CreateSecret",
        "GetSecret",
        "GetSecret",
    ]
    assert first["service"] == "secrets"
    assert first["principal"].startswith("key:")
    assert first["key_prefix"]
    assert (first["outcome"], first["code"], first["kind"]) == ("allowed", "OK", "call")
    # Of clients on its own machine Envoy forwards the machine's address.
    assert ip_address(first["address"])
    assert first["request_id"] != second["request_id"]
    assert listed(admin, request_id=first["request_id"]) == [first]


@pytest.mark.row("S1.9")
def test_every_service_has_its_part(stack: Stack, admin: Caller) -> None:
    model, version = unique("audited"), "v1"
    with grpc.insecure_channel(stack.target) as channel:
        uploads = Uploads(channel, stack.admin_key)
        uploads.push(model, version, {"weights.bin": b"weights"})
        uploads.read(model, version, "weights.bin")
    resource = f"managers/default/models/{model}*"
    methods = [event["method"].rpartition("/")[2] for event in listed(admin, service="models", resource=resource)]
    assert methods == ["ReadFile", "CommitUpload", "CreateUpload"]
    status, key = admin.rest("POST", "/api-keys", {"name": unique("audit"), "permission_set": "read_only"})
    assert status == 201
    [event] = listed(admin, service="auth", resource=f"keys/{key['id']}", method="CreateApiKey")
    assert event["outcome"] == "allowed"


@pytest.mark.row("S3.8")
def test_refusals_are_listed_with_where_they_came_from(stack: Stack, admin: Caller) -> None:
    stranger, forger = Caller(stack), Caller(stack, "sr_live_" + "a" * 40)
    assert stranger.rest("GET", "/api/v1/secrets")[0] == 401
    assert forger.rest("GET", "/api/v1/secrets")[0] == 401
    assert stranger.code(AUDIT, "VerifyAuditLog", pb.VerifyAuditLogRequest()) == "UNAUTHENTICATED"
    for kind in ("auth.missing_key", "auth.invalid_key"):
        # The stack is everybody's: ours may be counted with those of others from this address, and whoever calls auth
        # past the gateway has none.
        event = eventually(lambda kind=kind: [event for event in listed(admin, kind=kind) if event["address"]])[0]
        assert (event["service"], event["outcome"], event["code"]) == ("auth", "denied", "UNAUTHENTICATED")
        assert event["address"] == "127.0.0.1"


@pytest.mark.row("S1.9")
def test_who_may_do_less_is_refused_and_listed(stack: Stack, admin: Caller) -> None:
    _, key = admin.rest("POST", "/api-keys", {"name": unique("audit"), "permission_set": "read_only"})
    weak = Caller(stack, key["key"])
    assert weak.rest("GET", "/api/v1/audit/events")[0] == 403
    assert weak.code(AUDIT, "ListAuditEvents", pb.ListAuditEventsRequest()) == "PERMISSION_DENIED"
    assert weak.rest("POST", "/api/v1/audit:verify", {})[0] == 403
    name = unique("audit/none")
    assert weak.rest("DELETE", f"/api/v1/secrets/{name}")[0] == 403
    [event] = eventually(lambda: listed(admin, principal=f"key:{key['id']}", method="DeleteSecret"))
    assert (event["outcome"], event["reason"]) == ("denied", "PERMISSION_MISSING")
    assert event["resource"] == f"secrets/{name}"


def test_pages_follow_each_other_without_a_gap(stack: Stack, admin: Caller) -> None:
    prefix = unique("audit/page")
    for number in range(7):
        admin.rest("PUT", f"/api/v1/secrets/{prefix}/{number}", {"data": {"n": number}, "allow_missing": True})
    found, token = [], ""
    while True:
        request = pb.ListAuditEventsRequest(resource=f"secrets/{prefix}*", page_size=3, page_token=token)
        page = admin.grpc(AUDIT, "ListAuditEvents", request)
        found += [event.resource.rpartition("/")[2] for event in page.events]
        token = page.next_page_token
        if not token:
            break
    assert found == ["6", "5", "4", "3", "2", "1", "0"]
    for wrong in ({"page_token": "nonsense"}, {"outcome": "maybe"}, {"service": "billing"}):
        status, problem = admin.rest("GET", "/api/v1/audit/events?" + "&".join(f"{k}={v}" for k, v in wrong.items()))
        assert status == 400, problem


@pytest.mark.row("S1.9")
def test_the_log_of_all_services_verifies(stack: Stack, admin: Caller) -> None:
    status, body = admin.rest("POST", "/api/v1/audit:verify", {})
    assert status == 200
    assert body["is_valid"], [chain for chain in body["chains"] if not chain["is_valid"]]
    assert {chain["service"] for chain in body["chains"]} == {"auth", "models", "secrets"}
    assert all(chain["heads"] >= 1 for chain in body["chains"])
    answer = admin.grpc(AUDIT, "VerifyAuditLog", pb.VerifyAuditLogRequest())
    assert answer.is_valid
    assert len(answer.chains) == len(body["chains"])


def database(stack: Stack, service: str) -> sqlite3.Connection:
    return sqlite3.connect(stack.data_dir / "db" / f"strongroom-{service}.db", timeout=20)


@pytest.mark.row("S1.9")
def test_who_signs_in_is_known_and_what_they_type_is_not(stack: Stack, admin: Caller) -> None:
    email, password = f"{unique('audit')}@example.org", unique("a password of words")
    status, user = admin.rest("POST", "/api/v1/users", {"email": email, "password": password, "role": "viewer"})
    assert status == 201, user
    nobody, principal = Caller(stack), f"user:{user['id']}"
    changed = unique("another password")
    fields = {"email": email, "password": password, "new_password": changed}
    assert nobody.rest("POST", "/api/v1/sessions", {**fields, "password": "wrong " + password})[0] == 401
    status, session = nobody.rest("POST", "/api/v1/sessions", fields)
    assert status == 201, session
    token = {"refresh_token": session["refresh_token"]}
    status, refreshed = nobody.rest("POST", "/api/v1/sessions:refresh", token)
    assert status == 201, refreshed
    assert nobody.rest("POST", "/api/v1/sessions:refresh", token)[0] == 401, "used twice"
    events = eventually(lambda: len(found := listed(admin, principal=principal)) == 3 and found)
    told = {(event["method"].rpartition("/")[2], event["outcome"], event["reason"]) for event in events}
    assert told == {
        ("SignIn", "allowed", ""),
        ("RefreshSession", "allowed", ""),
        ("RefreshSession", "denied", "REFRESH_TOKEN_REUSED"),
    }
    [made] = listed(admin, resource=f"users/{user['id']}", method="CreateUser")
    assert made["outcome"] == "allowed"
    with closing(database(stack, "auth")) as connection:
        everything = json.dumps(connection.execute("SELECT * FROM audit_events").fetchall(), default=repr)
    for canary in (email, password, changed, session["refresh_token"], session["access_token"]):
        assert canary not in everything


def test_no_key_and_no_value_is_in_any_event(stack: Stack, admin: Caller) -> None:
    name = unique("audit/canary")
    _, key = admin.rest("POST", "/api-keys", {"name": unique("audit"), "permission_set": "full_access"})
    caller = Caller(stack, key["key"])
    caller.rest("POST", "/api/v1/secrets", {"name": name, "data": {"password": CANARY}})
    caller.rest("GET", f"/api/v1/secrets/{name}")
    caller.rest("POST", "/api/v1/secrets", {"name": name, "data": {"password": CANARY}})
    Caller(stack, key["key"][:-1] + "x").rest("GET", f"/api/v1/secrets/{name}")
    Caller(stack, f"Bearer {CANARY}", "Authorization").rest("GET", f"/api/v1/secrets/{name}")
    caller.rest("POST", "/auth/login", {"email": "nobody@example.org", "password": CANARY})
    caller.rest("POST", "/api/v1/sessions", {"email": "nobody@example.org", "password": CANARY})
    time.sleep(1.5)  # refusals are written within a second
    secret = key["key"].rpartition("_")[2]
    for service in ("auth", "models", "secrets"):
        with closing(database(stack, service)) as connection:
            events = json.dumps(connection.execute("SELECT * FROM audit_events").fetchall(), default=repr)
        for canary in (CANARY, key["key"], secret, stack.admin_key, "nobody@example.org"):
            assert canary not in events, service
        # Nor anywhere else in the files of the database, the write-ahead log included.
        for file in (stack.data_dir / "db").glob(f"strongroom-{service}.db*"):
            assert CANARY.encode() not in file.read_bytes(), file
            assert key["key"].encode() not in file.read_bytes(), file
    for file in (stack.data_dir / "audit").iterdir():
        assert CANARY.encode() not in file.read_bytes()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack of this module's own, whose parts may die."""
    settings = {"STRONGROOM_RATE_LIMIT": "off", "STRONGROOM_ALERT_FAILURES": "10"}
    running = RunningStack(tmp_path_factory.mktemp("audit") / "data", **settings)
    with running:
        yield running


def its_admin(running: RunningStack) -> Caller:
    url = f"http://127.0.0.1:{running.port}"
    return administrator(Stack(url, (running.data_dir / "admin.key").read_text().strip(), running.data_dir))


@pytest.mark.row("S3.8")
def test_a_client_that_fails_often_raises_an_alarm(own: RunningStack) -> None:
    admin = its_admin(own)
    assert listed(admin, kind="auth.many_failures") == []
    stranger, forger = Caller(admin.stack), Caller(admin.stack, "no key of ours")
    for _ in range(8):
        stranger.rest("GET", "/api/v1/secrets")
        assert forger.code(AUDIT, "ListAuditEvents", pb.ListAuditEventsRequest()) == "UNAUTHENTICATED"
    [alarm] = eventually(lambda: listed(admin, kind="auth.many_failures"))
    assert (alarm["outcome"], alarm["reason"], alarm["service"]) == ("denied", "MANY_FAILURES", "auth")
    log = (own.data_dir / "logs" / "auth.log").read_text()
    for event, level in (
        ("auth.many_failures", "warning"),
        ("auth.invalid_key", "warning"),
        ("auth.missing_key", "info"),
    ):
        lines = [json.loads(line) for line in log.splitlines() if f'"{event}"' in line]
        assert {line["level"] for line in lines} == {level}, event
    assert "no key of ours" not in log


def test_a_change_that_was_acknowledged_has_its_event_whatever_happens_next(own: RunningStack) -> None:
    admin = its_admin(own)
    for number in range(3):
        name = f"crash/{number}"
        victim = admin.stack.state["pids"]["secrets"]
        assert admin.rest("POST", "/api/v1/secrets", {"name": name, "data": {"n": number}})[0] == 201
        os.kill(victim, signal.SIGKILL)
        eventually(lambda victim=victim: admin.stack.state["pids"]["secrets"] != victim, seconds=20)
        wait_healthy(f"127.0.0.1:{admin.stack.state['ports']['secrets']}")
        events = eventually(lambda name=name: _try(admin, resource=f"secrets/{name}"), seconds=20)
        assert [event["outcome"] for event in events] == ["allowed"]
    status, body = admin.rest("POST", "/api/v1/audit:verify", {})
    assert (status, body["is_valid"]) == (200, True), body
    assert len([chain for chain in body["chains"] if chain["service"] == "secrets"]) >= 4


def _try(caller: Caller, **fields: Any) -> list[dict[str, Any]]:
    try:
        return listed(caller, **fields)
    except (AssertionError, grpc.RpcError):
        return []


@pytest.mark.slow
def test_a_part_that_does_not_answer_is_named_and_not_left_out(own: RunningStack) -> None:
    admin = its_admin(own)
    os.kill(admin.stack.state["pids"]["models"], signal.SIGSTOP)
    try:
        request = pb.ListAuditEventsRequest(page_size=1)
        metadata = [("x-api-key", admin.credential)]
        with grpc.insecure_channel(admin.stack.target) as channel, pytest.raises(grpc.RpcError) as caught:
            AUDIT(channel).ListAuditEvents(request, metadata=metadata, timeout=90)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert reason_of(caught.value) == "AUDIT_PART_UNAVAILABLE"
        assert "models" in caught.value.details()
        assert listed(admin, service="secrets", page_size=1)
    finally:
        os.kill(admin.stack.state["pids"]["models"], signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.row("S1.9")
def test_on_postgresql_as_well(tmp_path: Path, postgresql_url: str) -> None:
    running = RunningStack(tmp_path / "data", STRONGROOM_DATABASE_URL=postgresql_url, STRONGROOM_RATE_LIMIT="off")
    with running as stack:
        administrator(stack).rest("POST", "/api/v1/secrets", {"name": "pg/one", "data": {"n": 1}})
    with running as stack, psycopg.connect(postgresql_url, autocommit=True) as connection:
        admin = administrator(stack)
        [event] = listed(admin, resource="secrets/pg/one")
        assert (event["service"], event["outcome"]) == ("secrets", "allowed")
        _, body = admin.rest("POST", "/api/v1/audit:verify", {})
        assert body["is_valid"], body
        closed = [chain["service"] for chain in body["chains"] if chain["is_closed"]]
        assert sorted(closed) == ["auth", "models", "secrets"], "the first run's, which ended in order"
        connection.execute("DELETE FROM secrets.audit_events WHERE chain = %s", [event["chain"]])
        _, body = admin.rest("POST", "/api/v1/audit:verify", {})
        [broken] = [chain for chain in body["chains"] if not chain["is_valid"]]
        assert broken["chain"] == event["chain"]
        assert broken["problems"] == ["The whole chain is missing: signed heads tell of it."]


@pytest.mark.row("S1.9")
def test_whoever_edits_the_database_is_found_out(own: RunningStack, tmp_path: Path) -> None:
    admin = its_admin(own)
    assert admin.rest("POST", "/api/v1/secrets", {"name": "tamper/one", "data": {"n": 1}})[0] == 201
    verify = pb.VerifyAuditLogRequest()
    assert admin.grpc(AUDIT, "VerifyAuditLog", verify).is_valid
    with closing(database(admin.stack, "secrets")) as connection:
        [[sequence]] = connection.execute("SELECT sequence FROM audit_events WHERE resource = 'secrets/tamper/one'")
        connection.execute("UPDATE audit_events SET principal = 'key:other' WHERE resource = 'secrets/tamper/one'")
        connection.commit()
    status, body = admin.rest("POST", "/api/v1/audit:verify", {})
    assert (status, body["is_valid"]) == (200, False)
    [broken] = [chain for chain in body["chains"] if not chain["is_valid"]]
    assert broken["service"] == "secrets"
    [problem] = broken["problems"]
    assert f"Event {sequence} " in problem
