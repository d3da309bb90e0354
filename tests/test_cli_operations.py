"""`strongroom audit`, `access`, `usage`, `admin signing-keys`, `status`: what whoever runs it looks at."""

import csv
import io
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.audit_trails import eventually
from tests.stack import STRONGROOM, Stack
from tests.terminal import Terminal


@pytest.fixture
def strongroom(stack: Stack) -> Terminal:
    return Terminal.of(stack)


@pytest.fixture
def reader(strongroom: Terminal, stack: Stack, request: pytest.FixtureRequest) -> Terminal:
    """A key that reads models."""
    name = f"operations-{request.node.name}"[:200]
    made = strongroom("keys", "create", name, "--permission-set", "read_only", "--json").json
    return Terminal(stack.url, made["key"])


@pytest.mark.row("S1.9")
def test_what_was_done_and_refused_is_in_the_audit_log(strongroom: Terminal, reader: Terminal) -> None:
    me = reader("whoami", "--json").json
    assert reader("keys", "create", "k", "--permission-set", "read_only").status == 1
    wanted = ("--principal", me["principal"], "--outcome", "denied", "--since", "5m")
    # Refusals are counted for a moment, and then written.
    event = eventually(lambda: strongroom("audit", "list", *wanted, "--json").json["events"], seconds=20)[0]
    assert event["method"].endswith("/CreateApiKey")
    assert event["key_prefix"] == me["key_prefix"]
    shown = strongroom("audit", "list", "--principal", me["principal"], "--method", "CreateApiKey", "-n", "1").out
    when, outcome, who, what, *_rest = shown.rstrip("\n").split("\t")
    assert (outcome, what) == ("denied", "CreateApiKey")
    assert me["key_prefix"] in who
    assert when.startswith("20")
    by_request = strongroom("audit", "list", "--request-id", event["request_id"], "--json").json["events"]
    assert [found["id"] for found in by_request] == [event["id"]]


def test_the_audit_log_is_verified(strongroom: Terminal) -> None:
    done = strongroom("audit", "verify")
    assert done.status == 0, done.err
    assert done.out.endswith("the audit log is intact\n")
    assert strongroom("audit", "verify", "--json").json["is_valid"] is True


def test_the_audit_log_is_not_everybodys(reader: Terminal) -> None:
    refused = reader("audit", "list")
    assert (refused.status, refused.err.startswith("strongroom: not allowed: ")) == (1, True)


def test_access_is_explained(strongroom: Terminal, reader: Terminal) -> None:
    told = strongroom("access", "explain", "role:viewer", "models.write", "managers/default/models/m")
    assert told.status == 0
    assert "models.write on managers/default/models/m: not passed" in told.out
    told = reader("access", "explain", "self", "models.read", "managers/default/models/m", "--json").json
    assert told["allowed"] is True
    refused = reader("access", "explain", "self", "Nonsense", "x")
    assert refused.status == 1
    assert refused.err.count("\n") == 1


@pytest.mark.row("S1.9")
def test_use_is_listed_and_exported(strongroom: Terminal, reader: Terminal, tmp_path: Path) -> None:
    me = reader("whoami", "--json").json["principal"]
    for _call in range(3):
        assert reader("ls").status == 0

    def used() -> float:
        lines = reader("usage", "--principal", "self", "--json").json["usage"]
        return sum(line["requests"] for line in lines if line["principal"] == me)

    eventually(lambda: used() >= 4, seconds=15)
    assert "operations-" in reader("usage", "list").out
    target = tmp_path / "use.csv"
    done = strongroom("usage", "export", "--principal", me, "-o", target)
    assert done.status == 0, done.err
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert rows
    assert {row["principal"] for row in rows} == {me}
    assert [path.name for path in tmp_path.iterdir()] == ["use.csv"]
    exported = json.loads(strongroom("usage", "export", "--principal", me, "--format", "json").out)
    lines = exported["usage"] if isinstance(exported, dict) else exported
    assert {line["principal"] for line in lines} == {me}


def test_an_export_that_can_not_be_written_says_so(strongroom: Terminal, tmp_path: Path) -> None:
    done = strongroom("usage", "export", "-o", tmp_path / "missing" / "use.csv")
    assert done.status == 1
    assert "can't be written: No such file or directory" in done.err


def test_signing_keys_are_listed(strongroom: Terminal, reader: Terminal) -> None:
    keys = strongroom("admin", "signing-keys", "list", "--json").json["signing_keys"]
    assert [key["state"] for key in keys].count("signing") == 1
    assert keys[0]["kid"] in strongroom("admin", "signing-keys", "list").out
    assert reader("admin", "signing-keys", "rotate").status == 1


def test_status_tells_of_parts_caller_and_versions(stack: Stack, strongroom: Terminal, reader: Terminal) -> None:
    told = reader("status", "--json").json
    assert set(told["health"]["checks"]) >= {"auth", "models", "secrets"}
    assert told["caller"]["name"].startswith("operations-")
    assert told["client_version"]
    assert told["rate_limit"] == {}
    lines = strongroom("status").out.splitlines()
    assert lines[0].startswith(f"{stack.url} is healthy: auth ")
    assert lines[1].startswith("you are administrator (key:")
    assert lines[2] == "  allow * on **"


def test_status_without_a_key_still_tells_of_the_parts(stack: Stack) -> None:
    done = Terminal(stack.url, "")("status")
    assert done.status == 1
    assert done.out.startswith(f"{stack.url} is healthy: ")
    assert "strongroom login" in done.err


def test_events_are_shown_as_they_happen(stack: Stack, strongroom: Terminal, reader: Terminal) -> None:
    me = reader("whoami", "--json").json["principal"]
    environment = dict(os.environ) | {"STRONGROOM_URL": stack.url, "STRONGROOM_API_KEY": stack.admin_key}
    command = [str(STRONGROOM), "audit", "tail", "--principal", me, "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        time.sleep(2)
        assert reader("secrets", "get", "nothing/here").status == 1
        assert tail.stdout is not None
        event = json.loads(tail.stdout.readline())
        tail.send_signal(signal.SIGINT)
        assert tail.wait(timeout=20) == 130
    assert event["method"].endswith("/GetSecret")
    assert event["outcome"] == "denied"


def test_what_others_named_can_not_move_the_cursor(strongroom: Terminal) -> None:
    made = strongroom("keys", "create", "evil \x1b[2Jname", "--permission-set", "read_only", "--json")
    if made.status == 0:
        assert "\x1b" not in strongroom("keys", "revoke", made.json["id"]).out
        assert "\x1b" not in strongroom("keys", "list").out
    else:
        assert "\x1b" not in made.err


def test_plain_http_to_elsewhere_is_warned_of() -> None:
    nobody = Terminal("", "", home="/nonexistent")
    done = nobody("login", "--url", "http://strongroom.invalid:1", stdin="sr_x\n")
    assert done.status == 1
    assert done.err.startswith("strongroom: warning: http://strongroom.invalid:1 is not encrypted")
    done = nobody("login", "--url", "http://127.0.0.1:9", stdin="sr_x\n")
    assert "warning" not in done.err


@pytest.mark.row("S1.9")
def test_a_quota_that_is_used_up_is_told_at_once(strongroom: Terminal, stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    arguments = ("--permission-set", "training_pipeline", "--quota", "upload=1/day", "--json")
    made = strongroom("keys", "create", "operations-quota", *arguments).json
    assert made["quotas"] == [{"usage_class": "upload", "requests": 1, "per": "day"}]
    limited = Terminal(stack.url, made["key"])
    assert limited("push", "quota-model", tmp_path / "w.bin", "--version", "v1").status == 0
    began = time.monotonic()
    refused = limited("push", "quota-model", tmp_path / "w.bin", "--version", "v2")
    assert refused.status == 1
    assert time.monotonic() - began < 5
    assert refused.err.count("\n") == 1
    assert "upload" in refused.err
    assert limited("ls").status == 0
