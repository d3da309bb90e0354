"""Paths at the edge: what no route knows is not transcoded, so nothing passes by the check of credentials."""

import re
from collections.abc import Iterator

import pytest

from strongroom.local import gateway
from strongroom.local.contract import SERVICES, Binding, Contract, Method, transcoder
from strongroom.local.routes import routes
from strongroom.rates import Rate
from tests.raw_http import request as raw
from tests.raw_http import send
from tests.stack import RunningStack, Stack
from tests.test_gateway_rest import admin, assert_problem, call

LIMIT = 8
CONTRACT = Contract.load(gateway.DESCRIPTOR_SET)
BINDINGS = [(method, binding) for method in CONTRACT.methods for binding in method.bindings]
VERSION = "/api/v1/managers/default/models/m/versions/v"
GAPS = [
    ("GET", "/api-keys//"),
    ("POST", "/api-keys/x/revoke//"),
    ("POST", "/api-keys//revoke"),
    ("GET", "/api/v1/managers//models"),
    *(("GET", f"/api/v1/{name}//") for name in ("users", "sessions", "secrets", "tokens", "usage")),
    ("GET", "/api/v1/secrets/a//b"),
    ("DELETE", "/api/v1/sessions//"),
    ("PUT", f"{VERSION}/files/"),
    ("GET", f"{VERSION}/files/"),
    ("GET", f"{VERSION}/files/a//b"),
    ("GET", f"{VERSION}/files/a/"),
    ("GET", "//health"),
    ("GET", "/health//"),
]
# Bytes that are no UTF-8, which patterns of routes may read otherwise than the transcoder; encoded ones; verbs; stars.
ODD = [
    "\xff",
    "a\xffb",
    "%ff",
    "%00",
    "%2F",
    "%2f%2e%2e%2f",
    "a:b",
    ":",
    "a:refresh",
    "*",
    "**",
    "{id}",
    ";a",
    "~",
    "$",
    "%",
    "a%0Ab",
]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One that lets an address be refused a few times in an hour."""
    with RunningStack(tmp_path_factory.mktemp("paths") / "data", STRONGROOM_RATE_LIMIT=f"{LIMIT}/hour") as running:
        yield running


def filled(binding: Binding, value: str) -> str:
    """A path of the template, with the value as each of its fields."""
    path = re.sub(r"\{[^}=]+\}", lambda _: value, binding.template)
    return re.sub(r"\{[^=}]+=([^}]*)\}", lambda field: re.sub(r"\*+", lambda _: value, field[1]), path)


def route_of(verb: str, path: str) -> dict:
    """The first route that takes a REST request, as Envoy chooses it."""
    for route in routes(CONTRACT, Rate(100, 60)):
        match = route["match"]
        if "grpc" in match or not path.startswith(match.get("prefix", "/")):
            continue
        pattern = match.get("safe_regex", {"regex": ".*"})["regex"]
        verbs = [header["string_match"]["exact"] for header in match.get("headers", [])]
        if re.fullmatch(pattern, path) and verb in (verbs or [verb]):
            return route
    raise AssertionError(f"{verb} {path} has no route")


@pytest.mark.parametrize(("method", "binding"), BINDINGS, ids=lambda value: getattr(value, "template", None))
def test_every_path_of_the_transcoder_has_a_route_that_asks_auth(method: Method, binding: Binding) -> None:
    for value in ("a", "a.b-c_d", "%C3%A4", "a:b"):
        filters = route_of(binding.verb, filled(binding, value))["typed_per_filter_config"]
        asked = filters["envoy.filters.http.ext_authz"]
        if method.public:
            assert asked == {**asked, "disabled": True}
            # A name could let in paths of other methods; below this folder there are none.
            assert "{" not in binding.template or binding.template == "/docs/assets/{name}"
        else:
            assert asked["check_settings"]["context_extensions"]["method"].startswith("/strongroom.")


def test_the_last_route_takes_everything_and_transcodes_nothing() -> None:
    last = routes(CONTRACT, Rate(100, 60))[-1]
    assert (last["match"], last["direct_response"]) == ({"prefix": "/"}, {"status": 404})
    for service in SERVICES:
        assert "services" not in last["typed_per_filter_config"][transcoder(service)]


@pytest.mark.parametrize(("verb", "path"), GAPS)
def test_an_empty_segment_is_no_path_of_anybodys(stack: Stack, verb: str, path: str) -> None:
    problem = assert_problem(admin(stack, verb, path), 404, "PATH_UNKNOWN")
    assert "slash" in problem["detail"]
    assert_problem(call(stack, verb, path), 404, "PATH_UNKNOWN")


def test_one_slash_at_the_end_is_none(stack: Stack) -> None:
    assert admin(stack, "GET", "/api-keys/?page_size=1").status == 200
    assert admin(stack, "GET", "/api/v1/managers/default/models/").status == 200


@pytest.mark.parametrize(("method", "binding"), BINDINGS, ids=lambda value: getattr(value, "template", None))
def test_no_odd_name_passes_by_the_check(stack: Stack, method: Method, binding: Binding) -> None:
    """Whoever does comes to the service without an identity, which is 401 though the key is good."""
    for value in ODD if binding.path_fields else []:
        line = f"{binding.verb} ".encode() + filled(binding, value).encode("latin-1")
        sent = raw("LINE", f"x-api-key: {stack.admin_key}", "content-length: 0").replace(b"LINE", line, 1)
        assert send(stack, sent).status in (0, 200, 400, 404, 409, 412), (method.path, value)


def test_a_guesser_finds_no_path_that_does_not_count(limited: Stack) -> None:
    """What asks for a credential counts refusals by address; whatever does not says that there is nothing."""
    for verb, path in GAPS:
        assert {call(limited, verb, path).status for _ in range(LIMIT + 2)} == {404}, path
    tried = [call(limited, "GET", "/api-keys/").status for _ in range(LIMIT + 2)]
    assert tried == [401] * LIMIT + [429] * 2
