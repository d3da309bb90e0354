"""Websites at the edge: who may ask, what browsers are told, and who hears of a refusal."""

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from strongroom.auth.v1 import info_pb2, info_pb2_grpc
from strongroom.edge.v1 import reports_pb2
from strongroom.local.errors import StartError
from strongroom.local.policy import Policy
from tests.raw_http import request as raw
from tests.raw_http import send
from tests.stack import RunningStack, Stack
from tests.test_gateway_grpc import refused
from tests.test_gateway_rest import Answer, admin, assert_problem, call

FRIEND = "https://app.example.com"
SECOND = "http://localhost:3000"
# The gateway's own names, beside addresses and localhost.
OURS, ALIAS = "strongroom.example", "http://gateway.internal:8080"
ENVIRONMENT = {
    "ALLOWED_ORIGINS": f"{FRIEND}, {SECOND}, {ALIAS}",
    "STRONGROOM_PUBLIC_URL": f"http://{OURS}",
    "STRONGROOM_RATE_LIMIT": "1000/second",
}
STRANGER = "https://evil.example.com"
REPORT = "/strongroom.edge.v1.EdgeService/ReportRefusedOrigin"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One that lets two websites in, and allows so much that it limits nobody here."""
    folder = tmp_path_factory.mktemp("origins") / "data"
    with RunningStack(folder, **ENVIRONMENT) as running:
        yield running


def preflight(stack: Stack, origin: str, path: str = "/api-keys/") -> Answer:
    return call(stack, "OPTIONS", path, {"Origin": origin, "Access-Control-Request-Method": "POST"})


@pytest.mark.row("S3.2")
@pytest.mark.parametrize("origin", [FRIEND, SECOND])
@pytest.mark.parametrize("path", ["/api-keys/", "/health", "/api/artifact/model"])
def test_a_preflight_is_204_with_the_three_headers(stack: Stack, origin: str, path: str) -> None:
    answer = preflight(stack, origin, path)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-methods"] == "GET,POST,PUT,DELETE,OPTIONS"
    allowed = answer.headers["access-control-allow-headers"].split(",")
    assert {"content-type", "authorization", "x-api-key"} <= set(allowed)
    assert int(answer.headers["access-control-max-age"]) > 0
    assert answer.headers["vary"] == "Origin"


@pytest.mark.row("S3.2")
@pytest.mark.parametrize("verb", ["GET", "POST", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/health", "/api-keys", "/nope"])
@pytest.mark.parametrize(
    "origin", [STRANGER, "null", f"{FRIEND}.evil.com", f"{FRIEND}:8443", "http://app.example.com", f"{FRIEND}/", ""]
)
def test_another_origin_is_403(stack: Stack, verb: str, path: str, origin: str) -> None:
    """With a good key, on public paths and on paths that do not exist."""
    answer = admin(stack, verb, path, Origin=origin)
    problem = assert_problem(answer, 403, "ORIGIN_NOT_ALLOWED")
    assert problem["detail"] == "Origin not allowed"
    assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_of_another_origin_is_403(stack: Stack) -> None:
    assert_problem(preflight(stack, STRANGER), 403, "ORIGIN_NOT_ALLOWED")


def test_two_origins_are_refused(stack: Stack) -> None:
    answer = send(stack, raw("GET /health", f"origin: {FRIEND}", f"origin: {STRANGER}"))
    assert_problem(answer, 403, "ORIGIN_NOT_ALLOWED")


def test_another_origin_is_refused_over_grpc(stack: Stack) -> None:
    with grpc.insecure_channel(stack.target) as channel:
        stub = info_pb2_grpc.InfoServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetInfo(info_pb2.GetInfoRequest(), metadata=[("origin", STRANGER)], timeout=10)
    refused(caught.value, grpc.StatusCode.PERMISSION_DENIED, "ORIGIN_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("path", "status"), [("/health", 200), ("/api-keys", 401), ("/nope", 404), ("/api-keys?api_key=x", 400)]
)
def test_an_allowed_origin_may_read_errors_too(stack: Stack, path: str, status: int) -> None:
    answer = call(stack, "GET", path, {"Origin": FRIEND})
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == FRIEND
    assert "retry-after" in answer.headers["access-control-expose-headers"]


def test_the_gateways_own_pages_are_always_allowed(stack: Stack) -> None:
    own = call(stack, "GET", "/health", {"Origin": stack.url})
    assert own.status == 200
    assert own.headers["access-control-allow-origin"] == stack.url
    for line in ("http://strongroom.example", "http://STRONGROOM.example:80"):
        host = line.removeprefix("http://")
        answer = send(stack, raw("GET /health", "origin: http://strongroom.example", host=host))
        assert answer.status == 200


@pytest.mark.parametrize("origin", ["https://strongroom.example", "http://strongroom.example:81", "strongroom.example"])
def test_the_same_host_by_another_scheme_or_port_is_another_origin(stack: Stack, origin: str) -> None:
    """`x-forwarded-proto` of the client's own does not help."""
    headers = [f"origin: {origin}", "x-forwarded-proto: https"]
    assert send(stack, raw("GET /health", *headers, host="strongroom.example")).status == 403


@pytest.mark.parametrize(
    "host", ["localhost:8080", "LOCALHOST", "127.0.0.1:9", "192.0.2.7", "[::1]:8080", "gateway.internal:8080"]
)
def test_a_page_of_ours_is_one_from_a_name_of_ours(stack: Stack, host: str) -> None:
    assert send(stack, raw("GET /health", f"origin: http://{host.lower()}", host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "evil.example.com:8080",
        "localhost.evil.com",
        "127.0.0.1.evil.com",
        "1.2.3.4.5",
        "gateway.internal",
    ],
)
@pytest.mark.parametrize("line", ["GET /api/v1/managers/default/models", "POST /api/v1/secrets", "GET /health"])
def test_a_name_that_leads_here_is_not_ours(stack: Stack, host: str, line: str) -> None:
    """DNS rebinding: a page of that name is the same origin to its browser."""
    answer = send(stack, raw(line, f"origin: http://{host}", f"x-api-key: {stack.admin_key}", host=host))
    assert_problem(answer, 403, "ORIGIN_NOT_ALLOWED")


def test_in_open_mode_a_name_that_leads_here_reads_nothing(tmp_path: Path) -> None:
    """A browser names no origin when a page reads from its own."""
    path, environment = "/api/v1/managers/default/models", ENVIRONMENT | {"STRONGROOM_AUTH_MODE": "open"}
    with RunningStack(tmp_path / "data", **environment) as opened:
        problem = assert_problem(send(opened, raw(f"GET {path}", host="evil.example.com")), 403, "HOST_NOT_ALLOWED")
        assert "STRONGROOM_ALLOWED_ORIGINS" in problem["detail"]
        for host in ("localhost:1", "127.0.0.1", OURS, "gateway.internal:8080"):
            assert send(opened, raw(f"GET {path}", host=host)).status == 200
        key = f"x-api-key: {opened.admin_key}"
        assert send(opened, raw(f"GET {path}", key, host="evil.example.com")).status == 200
        assert send(opened, raw("GET /health", host="evil.example.com")).status == 200
        evil = "origin: http://evil.example.com"
        assert_problem(send(opened, raw(f"GET {path}", evil, host="evil.example.com")), 403, "ORIGIN_NOT_ALLOWED")


def test_without_an_origin_nothing_is_said_but_that_it_matters(stack: Stack) -> None:
    answer = call(stack, "GET", "/health")
    assert not any(name.startswith("access-control-") for name in answer.headers)
    assert answer.headers["vary"] == "Origin"


@pytest.mark.row("S3.8")
def test_refused_origins_are_counted_and_logged(stack: Stack) -> None:
    path = "/health/refused-origin-marker"
    before = metric(stack, "strongroom_refused_origins_total")
    for _ in range(20):
        call(stack, "GET", f"{path}?query=is-not-logged", {"Origin": STRANGER})
    # The first of a second is told at once, and what a flood leaves untold with the next.
    deadline = time.monotonic() + 60
    while metric(stack, "strongroom_refused_origins_total") - before < 20 and time.monotonic() < deadline:
        time.sleep(0.6)
        call(stack, "GET", path, {"Origin": STRANGER})
    assert metric(stack, "strongroom_refused_origins_total") - before >= 20
    log = (stack.data_dir / "logs" / "auth.log").read_text()
    lines = [line for line in log.splitlines() if path in line and "auth.origin_refused" in line]
    assert lines
    assert all(STRANGER in line and '"127.0.0.1"' in line for line in lines)
    assert len(lines) < 20, "a flood costs little"
    assert "is-not-logged" not in log


@pytest.mark.row("S3.7")
def test_when_a_service_says_when_to_try_again_rest_clients_hear_it(stack: Stack) -> None:
    """RetryInfo of a service, here of sign-in, which slows down who guesses, becomes `Retry-After`."""
    wrong = b'{"email": "guess@example.com", "password": "a wrong password"}'
    waited = 0
    # The delays grow; more than the second that the gateway tells where it does not know.
    while waited < 2:
        answer = call(stack, "POST", "/api/v1/sessions", {}, wrong)
        if answer.status == 429:
            problem = assert_problem(answer, 429, "SIGN_IN_THROTTLED")
            waited = int(answer.headers["retry-after"])
            assert problem["details"][1]["retry_delay"] == f"{waited}s"
            time.sleep(waited)


def test_nobody_but_the_gateway_can_report_through_the_gateway(stack: Stack) -> None:
    with grpc.insecure_channel(stack.target) as channel:
        report = channel.unary_unary(
            REPORT,
            reports_pb2.ReportRefusedOriginRequest.SerializeToString,
            reports_pb2.ReportRefusedOriginResponse.FromString,
        )
        request = reports_pb2.ReportRefusedOriginRequest(origin=STRANGER)
        with pytest.raises(grpc.RpcError) as caught:
            report(request, metadata=[("x-api-key", stack.admin_key)], timeout=10)
    refused(caught.value, grpc.StatusCode.UNIMPLEMENTED, "PATH_UNKNOWN")


@pytest.mark.parametrize(
    "text", ["*", "https://*.example.com", "https://a.example.com/", "app.example.com", "null", "https://A.example.com"]
)
def test_what_is_no_origin_is_refused_at_start(text: str) -> None:
    with pytest.raises(StartError, match="STRONGROOM_ALLOWED_ORIGINS"):
        Policy.read({"STRONGROOM_ALLOWED_ORIGINS": f"https://ok.example.com,{text}"})


def test_our_name_counts_before_the_documents() -> None:
    both = {"STRONGROOM_ALLOWED_ORIGINS": "https://[::1]:8443", "ALLOWED_ORIGINS": "https://b.example.com"}
    assert Policy.read(both).origins == ("https://[::1]:8443",)
    assert Policy.read({"ALLOWED_ORIGINS": " https://b.example.com , "}).origins == ("https://b.example.com",)
    assert Policy.read({}).origins == ()


def metric(stack: Stack, name: str, part: str = "auth") -> float:
    """The sum of a counter's series."""
    url = f"http://127.0.0.1:{stack.state['metrics'][part]}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))
