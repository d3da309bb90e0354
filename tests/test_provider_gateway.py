"""Providers through the gateway: over REST, gRPC and the command line, with a real OpenBao behind."""

import json
import os
import secrets
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.secrets.providers.provider import SecretProvider
from services.shared.errors import NotFound
from strongroom.client import Client
from strongroom.errors import StrongroomError
from tests.audit_trails import eventually
from tests.provider_kinds import fields, opened
from tests.secrets_installation import PLANTED
from tests.stack import STRONGROOM, RunningStack, Stack

pytestmark = pytest.mark.row("S4.2")

_TOKEN = "STRONGROOM_PROVIDER_TOKEN"


class Installed:
    """An installation whose replica is OpenBao, and which knows AWS by name; and both past it."""

    def __init__(self, stack: Stack, bao: SecretProvider, aws: SecretProvider) -> None:
        self.stack = stack
        self.bao = bao
        self.aws = aws

    def rest(self, verb: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
        """Status and document."""
        headers = {"X-API-Key": key or self.stack.admin_key, "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.stack.url}{path}", data, headers, method=verb)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - our own http URL
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def cli(self, *words: str, status: int = 0, given: str = "") -> str:
        """What a command prints."""
        environment = os.environ | {"STRONGROOM_URL": self.stack.url, "STRONGROOM_API_KEY": self.stack.admin_key}
        done = subprocess.run(
            [STRONGROOM, "secrets", *words], env=environment, input=given, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("providers")
    bao, aws = fields("openbao", request, folder), fields("aws", request, folder)
    past_it = opened(bao), opened(aws)
    token = Path(bao["sign_in"]["token"]["file"]).read_text()
    bao["sign_in"] = {"method": "token", "token": {"environment": _TOKEN}}
    file = folder / "providers.yaml"
    file.write_text(json.dumps({"replicas": ["bao"], "providers": {"bao": bao, "aws": aws}}))
    environment = {"STRONGROOM_PROVIDERS": str(file), _TOKEN: token, "STRONGROOM_PROVIDER_SECONDS": "0.1"}
    with RunningStack(folder / "data", **environment) as stack:
        yield Installed(stack, *past_it)
    logs = "".join(log.read_text(errors="replace") for log in (folder / "data" / "logs").glob("*.log"))
    assert token not in logs
    assert PLANTED not in logs


@pytest.fixture(scope="module")
def client(installed: Installed) -> Iterator[Client]:
    with Client(installed.stack.url, api_key=installed.stack.admin_key) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"prod/db-{secrets.token_hex(4)}"


def _has(provider: SecretProvider, name: str) -> Any:
    """None if nothing."""
    try:
        return provider.get(name).data
    except NotFound:
        return None


def test_what_is_written_over_rest_follows_in_the_replica(installed: Installed, name: str) -> None:
    status, _ = installed.rest("POST", "/api/v1/secrets", {"name": name, "data": {"password": PLANTED}})
    assert status == 201
    eventually(lambda: _has(installed.bao, name) == {"password": PLANTED})
    assert _has(installed.aws, name) is None
    status, shown = installed.rest("GET", "/api/v1/secret-providers")
    assert status == 200
    assert [(one["name"], one["role"], one["healthy"]) for one in shown["providers"]] == [
        ("embedded", "primary", True),
        ("bao", "replica", True),
        ("aws", "named", True),
    ]
    assert installed.rest("DELETE", f"/api/v1/secrets/{name}")[0] == 200
    eventually(lambda: _has(installed.bao, name) is None)


@pytest.mark.row("S4.1")
def test_named_provider_over_rest(installed: Installed, name: str) -> None:
    body = {"name": name, "data": {"n": 1}, "provider": "aws"}
    status, made = installed.rest("POST", "/api/v1/secrets", body)
    assert (status, made["provider"]) == (201, "aws")
    assert _has(installed.aws, name) == {"n": 1}
    status, found = installed.rest("GET", f"/api/v1/secrets/{name}?provider=aws")
    assert (status, found["data"], found["revision"]) == (200, {"n": 1}, made["revision"])
    assert installed.rest("GET", f"/api/v1/secrets/{name}")[0] == 404
    stale = {"data": {"n": 2}, "provider": "aws", "expected_revision": secrets.token_hex(16)}
    status, problem = installed.rest("PUT", f"/api/v1/secrets/{name}", stale)
    assert (status, problem["reason"]) == (409, "VERSION_MISMATCH")
    assert installed.rest("DELETE", f"/api/v1/secrets/{name}?provider=aws")[0] == 200
    assert _has(installed.aws, name) is None


@pytest.mark.row("S4.1")
def test_named_provider_over_grpc_needs_its_own_permission(installed: Installed, client: Client, name: str) -> None:
    there = client.providers.at("aws")
    first = there.put(name, {"token": PLANTED, "key": b"\x00\x01"})
    assert there.value(name) == {"token": PLANTED, "key": b"\x00\x01"}
    there.put(name, {"n": 2}, expected_revision=first.revision)
    assert [each.name for each in there.list("prod/")] == [name]
    assert len(there.history(name)) == 2
    here = client.keys.create(f"here-{name[-4:]}", permissions=["secrets.*"]).key
    with Client(installed.stack.url, api_key=here) as limited:
        limited.secrets.put(f"{name}-own", {"n": 1})
        for call in (there_of(limited).get, there_of(limited).delete, there_of(limited).history):
            with pytest.raises(StrongroomError, match=r"providers\.use on providers/aws"):
                call(name)
    status, problem = installed.rest("GET", f"/api/v1/secrets/{name}?provider=aws", key=here)
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    there.delete(name)
    about = f"providers/aws/secrets/{name}"
    eventually(lambda: {"allowed", "denied"} <= {event.outcome for event in client.audit.list(resource=about)})


def there_of(client: Client) -> Any:
    return client.providers.at("aws")


def test_command_line_shows_compares_and_repairs(installed: Installed, name: str) -> None:
    installed.cli("put", name, "password=-", given=PLANTED)
    eventually(lambda: _has(installed.bao, name))
    installed.cli("sync")
    assert "bao" in installed.cli("providers")
    assert installed.cli("drift") == ""
    installed.bao.put(name, {"password": "somebody else's"})
    drifted = installed.cli("drift", status=1)
    assert "different" in drifted
    assert PLANTED not in drifted
    assert "bao: up" in installed.cli("sync")
    assert _has(installed.bao, name) == {"password": PLANTED}
    assert "no provider" in installed.cli("sync", "nowhere", status=1)


@pytest.mark.row("S4.1")
def test_command_line_uses_a_provider_by_name(installed: Installed, name: str) -> None:
    installed.cli("put", name, "password=-", "--provider", "aws", given=PLANTED)
    assert installed.cli("get", name, "-p", "aws", "--field", "password").strip() == PLANTED
    assert name in installed.cli("list", "-p", "aws")
    assert len(json.loads(installed.cli("history", name, "-p", "aws", "--json"))["versions"]) == 1
    installed.cli("rm", name, "-p", "aws", "--yes")
    assert _has(installed.aws, name) is None
