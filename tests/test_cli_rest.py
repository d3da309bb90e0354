"""`--json` prints what REST answers: each command beside the GET of the same thing."""

import json
import sqlite3
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.stack import Stack
from tests.terminal import Terminal

# Of the key that asks: both questions count and move it.
_CHANGES = {"usage_count", "last_used_at"}


@pytest.fixture
def strongroom(stack: Stack) -> Terminal:
    return Terminal.of(stack)


def rest(stack: Stack, path: str, body: Any = None) -> Any:
    """What REST answers, to a POST if there is a body."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"X-API-Key": stack.admin_key, "Content-Type": "application/json"}
    request = urllib.request.Request(stack.url + path, data, headers)  # noqa: S310 - always our own http URL
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        return json.load(answer)


def lasting(document: Any) -> Any:
    """The document without what changes with every request."""
    if isinstance(document, dict):
        return {name: lasting(value) for name, value in document.items() if name not in _CHANGES}
    return [lasting(item) for item in document] if isinstance(document, list) else document


def test_models(strongroom: Terminal, stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "in" / "ü ber").mkdir(parents=True)
    (tmp_path / "in" / "ü ber" / "w.bin").write_bytes(b"weights")
    (tmp_path / "in" / "empty").touch()
    base = "/api/v1/managers/default/models/cli-rest/versions"
    pushed = strongroom("push", "cli-rest", tmp_path / "in", "--version", "v1", "--json").json
    assert pushed == rest(stack, f"{base}/v1")
    assert strongroom("show", "cli-rest", "--json").json == rest(stack, f"{base}/latest")
    assert strongroom("ls", "cli-rest", "--json").json == rest(stack, base)
    assert strongroom("pull", "cli-rest@v1", tmp_path / "out", "--json").json == rest(stack, f"{base}/v1")
    assert strongroom("verify", "cli-rest@v1", "--json").json == rest(stack, f"{base}/v1:verify", {})


def test_secrets(strongroom: Terminal, stack: Stack) -> None:
    data = {
        "whole": 5,
        "fraction": 0.1,
        "large": 2**53,
        "huge": 1e300,
        "tiny": 1e-7,
        "text": "ü\u2028\x1b",
        "none": None,
        "list": [1, {"deep": [True]}],
        "empty": {},
    }
    strongroom("secrets", "put", "cli-rest/s", "-", stdin=json.dumps({"first": "1"}))
    strongroom("secrets", "put", "cli-rest/s", "-", stdin=json.dumps(data))
    read = strongroom("secrets", "get", "cli-rest/s", "--json")
    assert read.json == rest(stack, "/api/v1/secrets/cli-rest/s")
    assert read.json["data"] == data
    assert len(read.out) < 700, "a number of 300 digits"
    older = strongroom("secrets", "get", "cli-rest/s", "--version", "1", "--json").json
    assert older == rest(stack, "/api/v1/secrets/cli-rest/s?version=1")
    history = strongroom("secrets", "history", "cli-rest/s", "--json").json
    assert history == rest(stack, "/api/v1/secrets/cli-rest/s:history")
    listed = strongroom("secrets", "list", "cli-rest/", "--json").json
    assert listed == rest(stack, "/api/v1/secrets?prefix=" + urllib.parse.quote("cli-rest/", safe=""))


def test_keys(strongroom: Terminal, stack: Stack) -> None:
    created = strongroom("keys", "create", "cli-rest", "--permission-set", "read_only", "--json").json
    key = created.pop("key")
    shown = strongroom("keys", "show", created["id"], "--json")
    assert shown.json == rest(stack, f"/api-keys/{created['id']}") == created
    listed = strongroom("keys", "list", "--json")
    assert created in listed.json["api_keys"]
    assert key not in shown.out + listed.out + strongroom("keys", "list").out
    sets = strongroom("keys", "sets", "--json").json
    assert sets == rest(stack, "/api-keys/permission-sets")
    revoked = strongroom("keys", "revoke", created["id"], "--json").json
    assert lasting(revoked) == lasting(rest(stack, f"/api-keys/{created['id']}"))
    answer = rest(stack, "/api-keys?page_size=100")
    active = strongroom("keys", "list", "--active", "--json").json
    assert answer.keys() == listed.json.keys()
    assert created["id"] not in {item["id"] for item in active["api_keys"]}


def test_status(strongroom: Terminal, stack: Stack) -> None:
    status = strongroom("status", "--json").json
    assert status["caller"] == rest(stack, "/api/v1/caller")
    health = rest(stack, "/health")
    assert status["health"].keys() == health.keys()
    assert (status["health"]["status"], status["health"]["version"]) == (health["status"], health["version"])


def test_a_dry_run_leaves_no_upload_open(strongroom: Terminal, stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights of a dry run")
    before = strongroom("ls", "--json").json
    assert strongroom("push", "cli-rest-dry", tmp_path / "w.bin", "--dry-run", "--json").json["bytes_to_send"] == 20
    assert "cli-rest-dry" not in {model["name"] for model in before["models"]}
    assert open_uploads(stack, "cli-rest-dry") == 0


def open_uploads(stack: Stack, model: str) -> int:
    with sqlite3.connect(f"file:{stack.data_dir}/db/strongroom-models.db?mode=ro", uri=True) as database:
        (count,) = database.execute(
            "SELECT count(*) FROM uploads WHERE model_name = ? AND state = 'open'", [model]
        ).fetchone()
    return int(count)
