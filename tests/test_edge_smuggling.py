"""Attacks on the edge: credentials twice, disguised or in URLs, and requests that two readers read differently."""

import base64
import json
from collections.abc import Iterator

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.calls import identity as identity_token
from strongroom.auth.v1 import tokens_pb2, tokens_pb2_grpc
from tests.raw_http import open_streams, send, send_http2
from tests.raw_http import request as raw
from tests.stack import Stack
from tests.test_gateway_grpc import refused
from tests.test_gateway_rest import admin, assert_problem, call

CALLER = "/api/v1/caller"


@pytest.fixture(scope="module")
def bearer(stack: Stack) -> str:
    """An access token of the administrator's."""
    return str(admin(stack, "POST", "/api/v1/tokens", {}).json["access_token"])


@pytest.fixture(scope="module")
def two_secrets(stack: Stack) -> tuple[str, str]:
    """A key that may read one of two secrets; the name of the other."""
    for name in ("smuggling/mine", "smuggling/theirs"):
        admin(stack, "POST", "/api/v1/secrets", {"name": name, "data": {"of": name}})
    wish = {"name": "one", "permissions": ["secrets.read", "secrets.write"], "scopes": ["secrets/smuggling/mine"]}
    return admin(stack, "POST", "/api-keys", wish).json["key"], "smuggling/theirs"


# Two credentials, or one that two readers could read differently.


@pytest.mark.parametrize("second", ["the same", "sr_another", ""])
@pytest.mark.parametrize("name", ["X-API-Key", "x-aPI-keY"])
def test_a_key_twice_is_a_bad_credential(stack: Stack, second: str, name: str) -> None:
    other = stack.admin_key if second == "the same" else second
    answer = send(stack, raw(f"GET {CALLER}", f"x-api-key: {stack.admin_key}", f"{name}: {other}"))
    assert_problem(answer, 401, "CREDENTIAL_INVALID")


@pytest.mark.parametrize("joined", ["{key},{key}", "{key}, x", "x,{key}", "{key};", "{key} {key}"])
def test_joined_keys_are_a_bad_credential(stack: Stack, joined: str) -> None:
    answer = call(stack, "GET", CALLER, {"X-API-Key": joined.format(key=stack.admin_key)})
    assert_problem(answer, 401, "CREDENTIAL_INVALID")


def test_a_verified_token_does_not_hide_a_wrong_key(stack: Stack, bearer: str) -> None:
    """Nor a right one: whoever sends two may have meant either."""
    for key in ("sr_wrong", stack.admin_key):
        answer = call(stack, "GET", CALLER, {"Authorization": f"Bearer {bearer}", "X-API-Key": key})
        assert_problem(answer, 401, "CREDENTIAL_INVALID")
    twice = send(stack, raw(f"GET {CALLER}", *[f"authorization: Bearer {bearer}"] * 2))
    assert_problem(twice, 401, "CREDENTIAL_INVALID")


def test_two_credentials_over_grpc_are_a_bad_one(stack: Stack, bearer: str) -> None:
    metadata = [("x-api-key", stack.admin_key), ("authorization", f"Bearer {bearer}")]
    with grpc.insecure_channel(stack.target) as channel:
        stub = tokens_pb2_grpc.TokenServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetCaller(tokens_pb2.GetCallerRequest(), metadata=metadata, timeout=10)
    refused(caught.value, grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


@pytest.mark.parametrize("name", ["X_API_Key", "x_api_key", "x-api_key", "x_strongroom_identity"])
def test_a_header_with_an_underscore_is_refused(stack: Stack, name: str) -> None:
    answer = send(stack, raw(f"GET {CALLER}", f"{name}: {stack.admin_key}"))
    assert_problem(answer, 400, "REQUEST_MALFORMED")


@pytest.mark.parametrize(
    "header",
    ["x-api-key : {key}", " x-api-key: {key}", "x-api-key\t: {key}", "x-api-key: a\x00{key}", "x-api-key: {key}\x01"],
)
def test_a_header_that_is_none_is_refused(stack: Stack, header: str) -> None:
    answer = send(stack, raw(f"GET {CALLER}", header.format(key=stack.admin_key)))
    assert answer.status in (0, 400, 401)


@pytest.mark.parametrize("name", ["x-strongroom-identity", "X-STRONGROOM-Identity", "x-strongroom-several-credentials"])
def test_what_only_the_edge_says_is_not_believed(stack: Stack, name: str) -> None:
    """Not even a genuine identity token."""
    [(_, token)] = identity_token(stack)
    path = "/api/v1/managers/default/models"
    assert_problem(call(stack, "GET", path, {name: token}), 401, "CREDENTIAL_MISSING")
    assert admin(stack, "GET", path, **{name: token}).status == 200


@pytest.mark.parametrize("name", ["x-envoy-original-path", "x-envoy-original-method", "x-forwarded-for"])
def test_a_client_does_not_say_where_it_comes_from(stack: Stack, name: str) -> None:
    answer = call(stack, "GET", "/api/v1/secrets", {name: "/health"})
    assert_problem(answer, 401, "CREDENTIAL_MISSING")


@pytest.mark.parametrize("injected", ["%0d%0ax-injected: yes", "\u010d\u010ax-injected: yes", "a\rx-injected: yes"])
def test_line_ends_in_values_make_no_header(stack: Stack, injected: str) -> None:
    """Where the gateway repeats what a client wrote: the path of a problem, and the id in a header."""
    line = f"GET /nope/{injected.replace(' ', '%20')}".encode("latin-1", "replace").decode("latin-1")
    for answer in (
        send(stack, raw(line)),
        send(stack, raw("GET /nope", f"x-request-id: {injected}".encode("latin-1", "replace").decode("latin-1"))),
    ):
        assert "x-injected" not in answer.headers
        assert answer.status in (0, 400, 404)


@pytest.mark.parametrize("headers", [["x-big: " + "a" * 70_000], [f"x-{number}: {'a' * 500}" for number in range(150)]])
def test_oversized_headers_are_431(stack: Stack, headers: list[str]) -> None:
    assert_problem(send(stack, raw("GET /health", *headers)), 431, "HEADERS_TOO_LARGE")


# Paths, parameters and bodies that two readers could read differently.


@pytest.mark.parametrize(
    "path",
    [
        "/health/../api/v1/secrets/{name}",
        "/health/%2e%2e/api/v1/secrets/{name}",
        "/health/..%2fapi/v1/secrets/{name}",
        "/api/v1/secrets/smuggling/mine/../theirs",
        "/api/v1/secrets/smuggling/mine/%2e%2e/theirs",
        "/api/v1/secrets/smuggling/mine/..%2Ftheirs",
        "/api/v1/secrets/smuggling%2Ftheirs",
        "/api/v1/secrets/smuggling%2F%2e%2e%2Fsmuggling/theirs",
        "/api/v1/secrets/smuggling/mine%00/../theirs",
        "/api/v1/secrets/./smuggling/./theirs",
        "/api/v1/secrets//smuggling//theirs",
        "/api/v1/secrets/%73muggling/theirs",
        "/api/v1/secret%73/smuggling/theirs",
        "/api/v1/secrets/smuggling/theirs/",
        "/api/v1/secrets/smuggling/mine?name=smuggling/theirs",
        "/api/v1/secrets/smuggling/mine?name=smuggling%2Ftheirs&name=smuggling/mine",
        "http://other/api/v1/secrets/smuggling/theirs",
        "/api/v1/secrets/smuggling/mine;/../theirs",
        "/api/v1/secrets/smuggling/mine/..\\theirs",
    ],
)
def test_no_spelling_of_a_path_reaches_another_resource(stack: Stack, two_secrets: tuple[str, str], path: str) -> None:
    """A key for one secret asks for another one by every spelling: it gets its own, or nothing."""
    key, other = two_secrets
    answer = send(stack, raw(f"GET {path.format(name=other)}", f"x-api-key: {key}"))
    assert answer.status in (0, 200, 400, 403, 404)
    assert b'"of":"smuggling/theirs"' not in answer.body
    if answer.status == 200:
        assert answer.json["data"] == {"of": "smuggling/mine"}


@pytest.mark.parametrize(
    "path",
    ["/api/v1/secrets/x", "/health/../api/v1/secrets", "/api/v1/secret%73", "/api//v1/secrets", f"{CALLER};"],
)
def test_no_spelling_of_a_path_does_without_a_credential(stack: Stack, path: str) -> None:
    answer = send(stack, raw(f"GET {path}"))
    assert answer.status in (400, 401, 404)


def test_a_field_of_the_body_does_not_override_the_path(stack: Stack, two_secrets: tuple[str, str]) -> None:
    key, other = two_secrets
    headers = {"X-API-Key": key, "content-type": "application/json"}
    for body in (
        {"name": other, "data": {"of": "an attacker"}},
        {"data": {"of": "mine"}, "name": other},
    ):
        answer = call(stack, "PUT", "/api/v1/secrets/smuggling/mine", headers, json.dumps(body).encode())
        assert answer.status in (200, 400)
    twice = b'{"name": "smuggling/mine", "name": "smuggling/theirs", "data": {"of": "an attacker"}}'
    assert call(stack, "PUT", "/api/v1/secrets/smuggling/mine", headers, twice).status in (200, 400, 403)
    assert admin(stack, "GET", f"/api/v1/secrets/{other}").json["data"] == {"of": other}


@pytest.mark.parametrize("query", ["page_size=1&page_size=1000", "page_size=1&page_size=x", "page_sise=1"])
def test_parameters_twice_or_unknown_do_no_harm(stack: Stack, query: str) -> None:
    answer = admin(stack, "GET", f"/api-keys?{query}")
    assert answer.status in (200, 400)


# Where one request ends and the next begins.

SMUGGLED = f"GET {CALLER} HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        ["content-length: 4", "transfer-encoding: chunked"],
        ["content-length: 4", "content-length: 60"],
        ["content-length: 4, 60"],
        ["content-length: +4"],
        ["content-length: 0x4"],
        ["content-length: -1"],
        ["transfer-encoding: chunked", "transfer-encoding: identity"],
        ["transfer-encoding: xchunked"],
        ["transfer-encoding: chunked, gzip"],
        ["transfer-encoding:\x0bchunked"],
    ],
)
def test_a_body_of_two_lengths_is_refused(stack: Stack, headers: list[str]) -> None:
    body = b"0\r\n\r\n" + SMUGGLED.encode()
    answer = send(stack, raw("POST /api-keys", f"x-api-key: {stack.admin_key}", *headers, body=body))
    assert answer.status in (0, 400, 501)


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
def test_a_connection_is_not_taken_over(stack: Stack, upgrade: str) -> None:
    answer = send(stack, raw("GET /health", f"upgrade: {upgrade}", "connection: upgrade, http2-settings"))
    assert answer.status in (200, 400, 403)


@pytest.mark.parametrize("line", ["CONNECT 127.0.0.1:22", "TRACE /health", "get /health", "GET"])
def test_other_verbs_lead_nowhere(stack: Stack, line: str) -> None:
    assert send(stack, raw(line)).status in (0, 400, 403, 404, 405)


def h2(path: str = CALLER, *more: tuple[str, str], **changed: str) -> list[tuple[str, str]]:
    pseudo = {"method": "GET", "scheme": "http", "authority": "strongroom", "path": path} | changed
    return [(f":{name}", value) for name, value in pseudo.items()] + list(more)


def test_a_plain_request_over_http2_is_answered(stack: Stack) -> None:
    """Or the tests below would show nothing."""
    assert send_http2(stack, h2("/health")).status == 200
    assert send_http2(stack, h2(CALLER, ("x-api-key", stack.admin_key))).status == 200
    assert send_http2(stack, h2(CALLER)).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        [*h2("/health"), (":path", CALLER)],
        [(":path", CALLER), *h2("/health")],
        [("x-first", "1"), *h2()],
        h2(CALLER, ("X-API-Key", "{key}")),
        h2(CALLER, ("x-api-key", "{key}"), ("x-api-key", "{key}")),
        h2(CALLER, ("connection", "x-api-key"), ("x-api-key", "{key}")),
        h2(CALLER, ("transfer-encoding", "chunked"), ("x-api-key", "{key}")),
        h2(CALLER, ("x-api-key", "{key}\r\nx-injected: 1")),
        h2(CALLER, ("x-api-key\r\nx: ", "{key}")),
        h2(CALLER, (":status", "200"), ("x-api-key", "{key}")),
        h2(CALLER, (":x-api-key", "{key}")),
        h2("", ("x-api-key", "{key}")),
        h2("api/v1/caller", ("x-api-key", "{key}")),
        h2(f"{CALLER} HTTP/1.1\r\nx: 1", ("x-api-key", "{key}")),
        [pair for pair in h2(CALLER, ("x-api-key", "{key}")) if pair[0] != ":path"],
        [pair for pair in h2(CALLER, ("x-api-key", "{key}")) if pair[0] != ":method"],
    ],
)
def test_http2_headers_that_break_the_rules_are_refused(stack: Stack, headers: list[tuple[str, str]]) -> None:
    filled = [(name, value.replace("{key}", stack.admin_key)) for name, value in headers]
    assert send_http2(stack, filled).status in (0, 400, 401, 404)


def test_who_opens_more_streams_than_were_allowed_is_cut_off(stack: Stack) -> None:
    """Clients heed what they are told, and wait; who does not loses the connection, and others lose nothing."""
    endless = h2("/api/v1/sessions", method="POST")
    assert open_streams(stack, endless, more=0)
    assert not open_streams(stack, endless, more=1)
    assert call(stack, "GET", "/health").status == 200


# Tokens.


def claims(bearer: str, **changed: object) -> dict[str, object]:
    return jwt.decode(bearer, options={"verify_signature": False}) | changed


def part(content: object) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def forged(stack: Stack, bearer: str) -> Iterator[str]:
    """Tokens with the administrator's claims that auth did not sign."""
    header, payload = jwt.get_unverified_header(bearer), claims(bearer)
    key = call(stack, "GET", "/.well-known/jwks.json").json["keys"][0]
    public = jwt.PyJWK(key).key
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    own = ec.generate_private_key(ec.SECP256R1())
    own_jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(own.public_key()))
    signature = bearer.rpartition(".")[2]
    for name in ("none", "None", "NONE", "nOnE"):
        yield f"{part(header | {'alg': name})}.{part(payload)}."
        yield f"{part(header | {'alg': name})}.{part(payload)}.{signature}"
    # The public key, which everybody has, as the secret of a symmetric algorithm.
    for secret in (pem, pem.rstrip(), base64.urlsafe_b64decode(key["x"] + "=="), b""):
        message = f"{part(header | {'alg': 'HS256'})}.{part(payload)}"
        mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(message.encode(), secret)
        yield f"{message}.{part(mac)}"
    for kid in ("../../../../dev/null", "' OR '1'='1", "http://127.0.0.1:1/jwks", "", key["kid"], f"{key['kid']}\x00"):
        yield jwt.encode(payload, own, "ES256", header | {"kid": kid})
    # Headers that bring their own key (RFC 7515, sections 4.1.2 to 4.1.8).
    for extra in ({"jwk": own_jwk}, {"jku": "http://127.0.0.1:1/jwks"}, {"x5u": "http://127.0.0.1:1/x"}):
        yield jwt.encode(payload, own, "ES256", header | extra)
    yield jwt.encode(payload, own, "ES256", {k: v for k, v in header.items() if k != "kid"})
    # CVE-2022-21449: zero for both numbers of the signature.
    yield f"{bearer.rpartition('.')[0]}.{part(bytes(64))}"
    # Auth's signature, and other claims or another header.
    yield f"{part(header)}.{part(claims(bearer, sub='key:other'))}.{signature}"
    yield f"{part(header | {'typ': 'other'})}.{part(payload)}.{signature}"
    yield f"{bearer}.{signature}"
    yield bearer.rpartition(".")[0]
    yield f"{bearer[:-4]}AAAA"


def test_no_forged_token_is_accepted(stack: Stack, bearer: str) -> None:
    assert call(stack, "GET", CALLER, {"Authorization": f"Bearer {bearer}"}).status == 200
    for token in forged(stack, bearer):
        for path in (CALLER, "/api/v1/managers/default/models"):
            answer = send(stack, raw(f"GET {path}", f"authorization: Bearer {token}"))
            assert answer.status in (400, 401), token
            if answer.status == 401:
                assert_problem(answer, 401, "CREDENTIAL_INVALID")


def test_an_identity_token_is_no_access_token(stack: Stack) -> None:
    """It is genuine, signed by the same key, and for one service alone."""
    [(_, token)] = identity_token(stack)
    path = "/api/v1/managers/default/models"
    assert_problem(call(stack, "GET", path, {"Authorization": f"Bearer {token}"}), 401, "CREDENTIAL_INVALID")


@pytest.mark.parametrize("place", ["query", "cookie", "x-api-key", "basic"])
def test_a_token_counts_in_its_header_alone(stack: Stack, bearer: str, place: str) -> None:
    path = f"{CALLER}?token={bearer}" if place == "query" else CALLER
    headers = {
        "query": {},
        "cookie": {"Cookie": f"access_token={bearer}"},
        "x-api-key": {"X-API-Key": bearer},
        "basic": {"Authorization": f"Basic {bearer}"},
    }[place]
    assert call(stack, "GET", path, headers).status in (400, 401)
