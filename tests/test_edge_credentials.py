"""Credentials in URLs, which end up in logs and histories: refused, and never written down."""

import json
import time

import grpc
import pytest

from strongroom.local import gateway
from strongroom.local.contract import Contract
from tests.raw_http import request as raw
from tests.raw_http import send
from tests.stack import Stack
from tests.test_gateway_grpc import refused
from tests.test_gateway_rest import admin, assert_problem, call

# In the alphabet of keys and refresh tokens.
LEAKED = "Lk4" * 16
TOKEN = f"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0-_{LEAKED}.c2lnbmF0dXJl-_{LEAKED}"


@pytest.mark.parametrize(
    "target",
    [
        "/api-keys?api_key=whatever",
        "/api-keys?page_size=1&X-API-Key=whatever",
        "/health?access_token=whatever",
        "/health?apikey=x",
        "/health?%61pi_key=x",
        "/health?key={key}",
        "/health?a={key}",
        "/health?a=sr%5F{rest}",
        "/api/v1/secrets/{key}",
        "/api/v1/secrets/sr%5f{rest}",
        "/nope/{key}/x",
        "/{key}",
        "/health;{key}",
        "/health?x;api_key={key}",
    ],
)
def test_a_credential_in_a_url_is_refused_and_never_logged(stack: Stack, target: str) -> None:
    written = target.format(key=stack.admin_key, rest=stack.admin_key[3:])
    problem = assert_problem(call(stack, "GET", written), 400, "CREDENTIAL_IN_URL")
    assert "header" in problem["detail"]
    assert "rotate" in problem["detail"]
    assert stack.admin_key[3:] not in json.dumps(problem)
    # With a right credential in the header, too: the other one has leaked all the same.
    assert_problem(admin(stack, "GET", written), 400, "CREDENTIAL_IN_URL")


def test_a_credential_in_the_url_of_a_grpc_call_is_refused(stack: Stack) -> None:
    with grpc.insecure_channel(stack.target) as channel:
        method = channel.unary_unary(f"/strongroom.auth.v1.TokenService/GetCaller?key={stack.admin_key}")
        with pytest.raises(grpc.RpcError) as caught:
            method(b"", timeout=10)
    refused(caught.value, grpc.StatusCode.INVALID_ARGUMENT, "CREDENTIAL_IN_URL")


# What Envoy's codec refuses, before any filter of ours sees it.
REFUSED_BY_THE_CODEC = [
    "GET /{key} HTTP/1.1\r\nhost: a\r\nx_underscore: 1\r\n\r\n",
    "GET /%00{key} HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET http://a/{key}#f HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /{key} HTTP/1.1\r\n\r\n",
    "GET /{key} HTTP/9.9\r\nhost: a\r\n\r\n",
    "POST /{key} HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
]


def encoded(text: str, times: int) -> str:
    """Every character of it, so often."""
    once = "".join(f"%{ord(character):02x}" for character in text)
    for _ in range(times - 1):
        once = once.replace("%", "%25")
    return once


@pytest.mark.parametrize(
    "target",
    [
        f"/api-keys/srr_{LEAKED}",
        f"/api-keys/{TOKEN}",
        f"/api-keys/x{TOKEN}",
        f"/api-keys/{TOKEN.rpartition('.')[0]}.",
        f"/api-keys/%2573r_{LEAKED}",
        f"/api-keys/%252573rr_{LEAKED}",
        f"/api-keys/{encoded(f'sr_{LEAKED}', 1)}",
        f"/api-keys/{encoded(f'sr_{LEAKED}', 5)}",
        f"/api-keys/{encoded(f'sr_{LEAKED}', 40)}",
        f"/api-keys/{encoded(TOKEN, 3)}",
        f"/health?a={TOKEN}",
        f"/health?a=srr_{LEAKED}",
        f"/health?a={encoded(TOKEN, 2)}",
        f"/api-keys//srr_{LEAKED}",
        f"/api-keys/srr_{LEAKED}/",
        *(
            f"/health?{name}={LEAKED}"
            for name in ("token", "jwt", "password", "secret", "ToKen", "%74oken", "%2574oken")
        ),
        *(f"/health?a=b&{name}={LEAKED}" for name in ("new_password", "current-password", "client_secret", "bearer")),
    ],
)
def test_no_kind_and_no_spelling_of_a_credential_passes(stack: Stack, target: str) -> None:
    """Refresh tokens and access tokens as well, encoded as often as anybody likes."""
    answer = call(stack, "GET", target)
    problem = assert_problem(answer, 400, "CREDENTIAL_IN_URL")
    assert LEAKED.encode() not in answer.body
    if target.startswith("/api-keys"):
        assert problem["instance"] == "/[redacted]"
    answer = send(stack, raw(f"OPTIONS {target}", "origin: https://evil.example.com"))
    assert_problem(answer, 403, "ORIGIN_NOT_ALLOWED")
    assert LEAKED.encode() not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/managers/default/models/sr_scorer/versions",
        "/api/v1/secrets/api_key=1",
        "/api/v1/managers/default/models/eyJx.eyJy/versions",
        "/api/v1/secrets/a%25b%20c",
        "/api-keys?page_token=token",
    ],
)
def test_names_that_look_a_little_like_it_are_no_credentials(stack: Stack, path: str) -> None:
    assert admin(stack, "GET", path).status in (200, 404, 400)
    assert admin(stack, "GET", path).json.get("reason") != "CREDENTIAL_IN_URL"


@pytest.mark.parametrize("piece", ["a", "eyJ", "eyJ.", "sr_", "%2561", "a=", ";a", "%3D"])
def test_a_long_query_is_looked_through_at_once(stack: Stack, piece: str) -> None:
    """By anyone who asks: a search that begins anew at each character kept the gateway busy for minutes."""
    target = "/health?a=" + piece * (50_000 // len(piece))
    before = time.monotonic()
    assert call(stack, "GET", target).status in (200, 400)
    assert time.monotonic() - before < 5


def test_no_query_parameter_of_ours_is_named_like_a_credential() -> None:
    names = {name for method in Contract.load(gateway.DESCRIPTOR_SET).methods for name in method.query_fields()}
    source = (gateway.FILES / "lua" / "credentials.lua").read_text()
    refused_names = source.partition("local NAMES = {")[2].partition("}")[0].replace(" = true", "").split(",")
    assert not {name.replace("_", "") for name in names} & {name.strip() for name in refused_names}


def test_no_log_has_a_credential(stack: Stack) -> None:
    """Nor after what the tests above have sent; Envoy writes its log every ten seconds."""
    for head in REFUSED_BY_THE_CODEC:
        assert send(stack, head.format(key=stack.admin_key).encode()).status in (0, 400, 401, 404, 426), head
    marker = f"/marker-{time.time_ns()}"
    call(stack, "GET", marker)
    log = stack.data_dir / "logs" / "gateway.log"
    deadline = time.monotonic() + 60
    while marker not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert marker in log.read_text()
    for file in stack.data_dir.glob("logs/*"):
        text = file.read_text(errors="replace")
        for credential in (stack.admin_key[3:], LEAKED, *(encoded(LEAKED, times)[:60] for times in (1, 2, 3, 5, 40))):
            assert credential not in text, file
