"""The documentation pages and the OpenAPI document: for everybody, from here alone, under a tight policy."""

import json
import re

import grpc
import pytest

from services.auth.documents import CONTENT_SECURITY_POLICY
from strongroom.auth.v1 import documents_pb2 as pb
from strongroom.auth.v1 import documents_pb2_grpc
from tests.page_assets import PAGES, digest, pins
from tests.stack import Stack
from tests.test_gateway_rest import assert_problem, call

PAGES_SERVED = ["/docs", "/redoc"]


@pytest.mark.row("S0.9")
@pytest.mark.row("S1.6")
@pytest.mark.parametrize("path", PAGES_SERVED)
def test_a_page_and_all_that_it_loads_come_without_a_credential(stack: Stack, path: str) -> None:
    page = call(stack, "GET", path)
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    loaded = re.findall(r'(?:src|href)="(/docs/assets/[^"]+)"', page.body.decode())
    assert len(loaded) >= 3
    for name in loaded:
        asset = call(stack, "GET", name)
        assert asset.status == 200, name
        assert asset.headers["content-type"].startswith(("text/javascript", "text/css"))
        assert asset.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", PAGES_SERVED)
def test_a_page_loads_nothing_from_elsewhere_and_stands_in_no_frame(stack: Stack, path: str) -> None:
    """A key is typed into it."""
    page = call(stack, "GET", path)
    policy = page.headers["content-security-policy"]
    assert policy == CONTENT_SECURITY_POLICY
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == "'self'"
    assert "<script>" not in page.body.decode()
    assert not re.search(r'(src|href)="(?!/|data:)', page.body.decode())


def test_a_link_to_a_page_cannot_choose_another_document(stack: Stack) -> None:
    for query in ("url=https://evil.example.com/x.json", "configUrl=https://evil.example.com/x.json"):
        assert call(stack, "GET", f"/docs?{query}").status == 400


@pytest.mark.row("S1.6")
def test_the_document_comes_without_a_credential(stack: Stack) -> None:
    answer = call(stack, "GET", "/openapi.json")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.json == json.loads((PAGES / "openapi.json").read_text())
    with grpc.insecure_channel(stack.target) as channel:
        stub = documents_pb2_grpc.DocumentServiceStub(channel)
        assert json.loads(stub.GetOpenApi(pb.GetOpenApiRequest()).data) == answer.json


def test_what_keeps_its_name_is_kept_by_browsers(stack: Stack) -> None:
    """Vendored assets carry their version in their names; ours may change with every release."""
    ours, theirs = (call(stack, "GET", f"/docs/assets/{name}") for name in ("docs.js", "redoc-2.5.4.js"))
    assert ours.headers["cache-control"] == "no-cache"
    assert theirs.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("name", ["nope.js", "..%2Fopenapi.json", "%2e%2e%2f%2e%2e%2fbootstrap.py", "vendored.json"])
def test_no_other_file_is_an_asset(stack: Stack, name: str) -> None:
    answer = call(stack, "GET", f"/docs/assets/{name}")
    assert answer.status in (400, 404)
    if name == "nope.js":
        assert_problem(answer, 404, "ASSET_NOT_FOUND")


def test_assets_are_the_ones_that_are_pinned() -> None:
    for pin in pins().values():
        assert pin["integrity"].startswith("sha512-")
        for name, file in pin["files"].items():
            assert digest(name) == file["sha256"], f"{name}: run python -m tests.page_assets"
            assert pin["version"] in name
