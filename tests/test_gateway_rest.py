"""REST at the gateway: every failure is a problem document, and nothing a client says about itself is believed."""

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.stack import Stack


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(
    stack: Stack, verb: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """One request, exactly as written: no redirects, no normalization of the path."""
    connection = http.client.HTTPConnection(stack.target, timeout=20)
    try:
        connection.request(verb, path, body, headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def admin(stack: Stack, verb: str, path: str, body: Any = None, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    return call(stack, verb, path, {"X-API-Key": stack.admin_key, **headers}, content)


def assert_problem(answer: Answer, status: int, reason: str) -> dict[str, Any]:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json
    assert problem["status"] == problem["status_code"] == status
    assert problem["reason"] == reason
    assert problem["type"] == f"urn:strongroom:error:{reason.lower().replace('_', '-')}"
    assert problem["title"]
    assert problem["detail"]
    assert not any(name.startswith("grpc-") for name in answer.headers)
    return problem


def test_public_paths_need_no_credential(stack: Stack) -> None:
    assert call(stack, "GET", "/").json["name"]
    health = call(stack, "GET", "/health")
    assert health.status == 200
    assert health.headers["content-type"] == "application/json"
    keys = call(stack, "GET", "/.well-known/jwks.json").json["keys"]
    assert {key["crv"] for key in keys} == {"P-256"}


@pytest.mark.row("S1.6")
def test_a_missing_credential_is_401(stack: Stack) -> None:
    problem = assert_problem(call(stack, "GET", "/api/v1/secrets"), 401, "CREDENTIAL_MISSING")
    assert problem["detail"] == "Missing authentication header: X-API-Key"
    assert problem["instance"] == "/api/v1/secrets"
    assert problem["request_id"]


@pytest.mark.row("S3.3")
@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "sr_not-a-key-of-ours-at-all"},
        {"X-API-Key": ""},
        {"Authorization": "Bearer no-token"},
        {"Authorization": "bearer no-token"},
        {"Authorization": "Basic YTpi"},
    ],
)
def test_a_bad_credential_is_401(stack: Stack, headers: dict[str, str]) -> None:
    problem = assert_problem(call(stack, "GET", "/api-keys", headers), 401, "CREDENTIAL_INVALID")
    assert problem["detail"] == "Invalid authentication credentials"


@pytest.mark.row("S2.1")
def test_an_access_token_is_accepted_without_the_key(stack: Stack) -> None:
    token = admin(stack, "POST", "/api/v1/tokens", {}).json["access_token"]
    caller = call(stack, "GET", "/api/v1/caller", {"Authorization": f"Bearer {token}"})
    assert caller.status == 200, caller.body
    assert caller.json["principal"] == admin(stack, "GET", "/api/v1/caller").json["principal"]


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR", "bearer "])
def test_the_scheme_of_a_token_has_no_case(stack: Stack, scheme: str) -> None:
    """RFC 9110, section 11.1."""
    token = admin(stack, "POST", "/api/v1/tokens", {}).json["access_token"]
    headers = {"Authorization": f"{scheme} {token}"}
    assert call(stack, "GET", "/api/v1/caller", headers).status == 200
    assert call(stack, "GET", "/api/v1/managers/default/models", headers).status == 200
    twice = call(stack, "GET", "/api/v1/caller", {**headers, "X-API-Key": stack.admin_key})
    assert_problem(twice, 401, "CREDENTIAL_INVALID")


def test_a_token_of_another_signer_is_refused(stack: Stack) -> None:
    key_id = call(stack, "GET", "/.well-known/jwks.json").json["keys"][0]["kid"]
    now = int(time.time())
    claims = {"iss": "strongroom", "aud": "strongroom", "sub": "key:x", "name": "x", "cred": "x", "kpx": "x"}
    claims |= {"iat": now, "exp": now + 600, "grants": [["allow", ["*"], ["**"]]]}  # type: ignore[dict-item]
    stranger = ec.generate_private_key(ec.SECP256R1())
    token = jwt.encode(claims, stranger, "ES256", {"typ": "at+jwt", "kid": key_id})
    assert_problem(call(stack, "GET", "/api-keys", {"Authorization": f"Bearer {token}"}), 401, "CREDENTIAL_INVALID")


@pytest.mark.parametrize("name", ["x-strongroom-identity", "X-Strongroom-Identity", "x-strongroom-anything"])
def test_a_forged_identity_is_removed(stack: Stack, name: str) -> None:
    """Even a genuine token: only the edge says who calls."""
    token = admin(stack, "POST", "/api/v1/tokens", {}).json["access_token"]
    assert_problem(call(stack, "GET", "/api-keys", {name: token}), 401, "CREDENTIAL_MISSING")
    assert call(stack, "GET", "/health", {name: token}).status == 200
    assert admin(stack, "GET", "/api/v1/caller", **{name: "forged"}).status == 200


def test_headers_with_underscores_are_refused(stack: Stack) -> None:
    answer = call(stack, "GET", "/health", {"x_strongroom_identity": "forged"})
    assert_problem(answer, 400, "REQUEST_MALFORMED")


@pytest.mark.parametrize("name", ["api_key", "x-api-key", "X-API-Key", "access_token", "apikey"])
def test_a_credential_in_the_query_is_never_accepted(stack: Stack, name: str) -> None:
    assert call(stack, "GET", f"/api-keys?{name}={stack.admin_key}").status in (400, 401)
    logs = stack.data_dir / "logs"
    assert stack.admin_key not in "".join(log.read_text() for log in logs.glob("*.log*"))


@pytest.mark.parametrize("path", ["/nope", "/api/v1/nope/", "/api//v1/secrets", "/%2e%2e/nope", "/health%2F"])
def test_an_unknown_path_is_404(stack: Stack, path: str) -> None:
    assert_problem(admin(stack, "GET", path), 404, "PATH_UNKNOWN")


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("POST", "/health", "GET"),
        ("DELETE", "/api-keys", "GET, POST"),
        ("PATCH", "/api/v1/secrets/a/b", "DELETE, GET, PUT"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_are_right(stack: Stack, verb: str, path: str, allowed: str) -> None:
    answer = admin(stack, verb, path)
    assert_problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("body", [b'{"name":', b"not json", b'{"name": 3}', b"[]"])
def test_malformed_json_is_400(stack: Stack, body: bytes) -> None:
    problem = assert_problem(admin(stack, "POST", "/api-keys", body), 400, "REQUEST_MALFORMED")
    assert "\n" not in problem["detail"]


def test_a_field_that_breaks_its_rule_is_400(stack: Stack) -> None:
    body = {"name": "", "permission_set": "read_only"}
    problem = assert_problem(admin(stack, "POST", "/api-keys", body), 400, "FIELD_INVALID")
    assert problem["details"][0]["reason"] == "FIELD_INVALID"
    assert problem["details"][0]["metadata"]["request_id"] == problem["request_id"]


def test_oversized_headers_are_431(stack: Stack) -> None:
    assert_problem(call(stack, "GET", "/health", {"x-big": "a" * 70_000}), 431, "HEADERS_TOO_LARGE")


def test_an_oversized_body_is_413_before_it_is_sent(stack: Stack) -> None:
    headers = {"X-API-Key": stack.admin_key, "content-length": str(17 << 20)}
    assert_problem(call(stack, "POST", "/api-keys", headers), 413, "BODY_TOO_LARGE")


def test_an_endless_body_is_cut_off(stack: Stack) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"name": "'
        while True:
            yield b"a" * (1 << 20)

    connection = http.client.HTTPConnection(stack.target, timeout=20)
    try:
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            connection.request("POST", "/api-keys", body(), {"X-API-Key": stack.admin_key})
    finally:
        connection.close()
    assert call(stack, "GET", "/health").status == 200


def test_a_body_of_several_mebibytes_reaches_the_service(stack: Stack) -> None:
    body = {"name": "a" * (3 << 20), "permission_set": "read_only"}
    assert_problem(admin(stack, "POST", "/api-keys", body), 400, "FIELD_INVALID")


def test_a_body_over_the_limit_of_the_service_is_too_large(stack: Stack) -> None:
    body = {"name": "a" * (12 << 20), "permission_set": "read_only"}
    assert_problem(admin(stack, "POST", "/api-keys", body), 413, "BODY_TOO_LARGE")


@pytest.mark.row("S2.3")
def test_both_forms_of_a_collection_work(stack: Stack) -> None:
    assert admin(stack, "GET", "/api-keys/?page_size=1").status == 200
    assert admin(stack, "GET", "/api-keys?page_size=1").status == 200


@pytest.mark.row("S2.2")
def test_creating_answers_201(stack: Stack) -> None:
    answer = admin(stack, "POST", "/api-keys/", {"name": "gateway test", "permission_set": "read_only"})
    assert answer.status == 201, answer.body
    assert "x-http-code" not in answer.headers


def test_a_query_parameter_does_not_override_the_path(stack: Stack) -> None:
    for name in ("gateway-override-a", "gateway-override-b"):
        created = admin(stack, "POST", "/api/v1/secrets", {"name": name, "data": {"of": name}})
        assert created.status in (201, 409), created.body
    answer = admin(stack, "GET", "/api/v1/secrets/gateway-override-a?name=gateway-override-b&version=1")
    assert answer.json["name"] == "gateway-override-a"
    assert answer.json["data"] == {"of": "gateway-override-a"}


def test_an_unknown_query_parameter_is_400(stack: Stack) -> None:
    assert_problem(admin(stack, "GET", "/api-keys?page_sise=3"), 400, "REQUEST_MALFORMED")


def test_the_request_id_is_the_gateways_own(stack: Stack) -> None:
    answer = call(stack, "GET", "/api-keys", {"x-request-id": "mine\u00fc"})
    assert answer.json["request_id"] == answer.headers["x-request-id"] != "mine\u00fc"


@pytest.mark.parametrize("method", ["KeyService/UnwrapKeys", "KeyService/Encrypt"])
def test_the_key_service_does_not_exist_here(stack: Stack, method: str) -> None:
    assert_problem(admin(stack, "POST", f"/strongroom.secrets.v1.{method}", {}), 404, "PATH_UNKNOWN")


def test_the_access_log_has_no_query_strings(stack: Stack) -> None:
    admin(stack, "GET", "/api-keys?page_size=7&page_token=query-string-marker")
    log = stack.data_dir / "logs" / "gateway.log"
    deadline = time.monotonic() + 60  # Envoy writes its log every ten seconds, or when its buffer is full
    while '"/api-keys"' not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert '"/api-keys"' in log.read_text()
    assert "query-string-marker" not in log.read_text()


def test_the_gateways_files_are_private(stack: Stack) -> None:
    run = stack.data_dir / "run"
    sockets = Path(stack.state["sockets"])
    assert run.stat().st_mode & 0o777 == 0o700
    for file in (run / "envoy.yaml", run / "state.json", sockets / "admin.sock", sockets / "jwks.sock"):
        assert file.stat().st_mode & 0o777 == 0o600, file
