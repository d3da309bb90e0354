"""`strongroom keys`, `login` and `status` as they are typed."""

import stat
from pathlib import Path

import pytest

from tests.stack import Stack
from tests.terminal import Terminal


@pytest.fixture
def strongroom(stack: Stack) -> Terminal:
    return Terminal.of(stack)


def test_a_key_from_create_to_revoke(strongroom: Terminal, stack: Stack, tmp_path: Path) -> None:
    created = strongroom("keys", "create", "cli-life", "--permission-set", "read_only", "--json").json
    reader = Terminal(stack.url, created["key"])
    assert reader("ls").status == 0
    (tmp_path / "w.bin").write_bytes(b"1")
    for arguments in (
        ("push", "m", tmp_path / "w.bin"),
        ("secrets", "list"),
        ("secrets", "get", "any"),
        ("secrets", "put", "any", "k=v"),
        ("keys", "create", "more", "--permission-set", "read_only"),
        ("admin", "gc"),
    ):
        refused = reader(*arguments)
        assert refused.status == 1
        assert refused.err.startswith("strongroom: not allowed: ")
        assert created["key"] not in refused.err
    shown = strongroom("keys", "show", created["id"], "--json").json
    assert shown["permission_set"] == "read_only"
    assert "key" not in shown
    assert strongroom("keys", "revoke", created["id"]).out == f"revoked cli-life ({created['id']})\n"
    assert reader("ls").status == 1
    assert "revoked" in strongroom("keys", "show", created["id"]).out


def test_the_key_alone_is_printed_for_scripts(strongroom: Terminal, stack: Stack) -> None:
    done = strongroom("keys", "create", "cli-script", "--permission-set", "read_only", "--expires-in-days", "2")
    key = done.out.strip()
    assert key.startswith("sr_")
    assert Terminal(stack.url, key)("ls").status == 0
    listed = strongroom("keys", "list").out
    assert "cli-script" in listed
    assert key not in listed


def test_a_scope_limits_a_key(strongroom: Terminal, stack: Stack) -> None:
    strongroom("secrets", "put", "cli-scope/in", "k=v")
    strongroom("secrets", "put", "cli-other/out", "k=v")
    arguments = ("--permission", "secrets.read", "--permission", "secrets.list", "--scope", "secrets/cli-scope/*")
    key = strongroom("keys", "create", "cli-scoped", *arguments, "--json").json["key"]
    scoped = Terminal(stack.url, key)
    assert scoped("secrets", "get", "cli-scope/in", "--field", "k").out == "v\n"
    assert scoped("secrets", "get", "cli-other/out").err.startswith("strongroom: not allowed: ")
    assert [secret["name"] for secret in scoped("secrets", "list", "--json").json["secrets"]] == ["cli-scope/in"]


def test_an_unknown_set_is_refused_and_the_sets_are_listed(strongroom: Terminal) -> None:
    refused = strongroom("keys", "create", "k", "--permission-set", "nope")
    assert refused.status == 1
    assert "read_only" in refused.err
    sets = strongroom("keys", "sets", "--json").json["permission_sets"]
    assert {"read_only", "full_access"} <= {item["name"] for item in sets}
    assert strongroom("keys", "sets").out.startswith("read_only\tmodels.read, ")


def test_json_of_the_list(strongroom: Terminal) -> None:
    listed = strongroom("keys", "list", "--active", "--json").json
    assert listed.keys() == {"api_keys", "next_page_token"}
    assert all(key["is_active"] for key in listed["api_keys"])


def test_login_keeps_what_works(stack: Stack, tmp_path: Path) -> None:
    nobody = Terminal("", "", home=str(tmp_path))
    done = nobody("login", "--url", stack.url, stdin=f"{stack.admin_key}\n")
    assert done.status == 0, done.err
    assert stack.admin_key not in done.out + done.err
    profile = tmp_path / "strongroom" / "profile.json"
    assert stat.S_IMODE(profile.stat().st_mode) == 0o600
    assert nobody("ls").status == 0
    assert nobody("status").out.startswith(f"{stack.url} is healthy: ")


def test_login_keeps_nothing_that_fails(stack: Stack, tmp_path: Path) -> None:
    done = Terminal(stack.url, "", home=str(tmp_path))("login", stdin="sr_wrong\n")
    assert done.status == 1
    assert "sr_wrong" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_status_says_who_you_are(strongroom: Terminal) -> None:
    status = strongroom("status", "--json").json
    assert status["health"]["status"] == "healthy"
    assert status["caller"]["grants"] == [{"effect": "allow", "permissions": ["*"], "resources": ["**"]}]
    assert "you are administrator" in strongroom("status").out
