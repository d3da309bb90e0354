"""`strongroom keys`, `login` and `status` as they are typed."""

import os
import stat
from pathlib import Path

import pytest

from tests.screen import Dialogue
from tests.stack import STRONGROOM, Stack
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
    unknown = f"is not known at {stack.url}: it was revoked, has expired or is of another installation."
    assert done.err == f"strongroom: the key that was given {unknown}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_key_is_told_by_where_it_comes_from(stack: Stack, strongroom: Terminal, tmp_path: Path) -> None:
    made = strongroom("keys", "create", "cli-gone", "--permission-set", "read_only", "--json").json
    kept = Terminal(stack.url, "", home=str(tmp_path))
    assert kept("login", stdin=made["key"]).status == 0
    strongroom("keys", "revoke", made["id"])
    told = kept("ls").err
    assert told.startswith(f"strongroom: the key of the profile is not known at {stack.url}: ")
    assert told.endswith(" Run: strongroom login\n")
    told = kept("ls", STRONGROOM_TOKEN="a.b.c").err
    assert told.startswith("strongroom: the token in STRONGROOM_TOKEN is not known at ")
    assert told.endswith(" unset STRONGROOM_TOKEN; strongroom login\n")


def test_status_says_who_you_are(strongroom: Terminal) -> None:
    status = strongroom("status", "--json").json
    assert status["health"]["status"] == "healthy"
    assert status["caller"]["grants"] == [{"effect": "allow", "permissions": ["*"], "resources": ["**"]}]
    assert "you are administrator" in strongroom("status").out


@pytest.mark.row("S2.3")
def test_a_key_is_changed_and_extended(strongroom: Terminal) -> None:
    made = strongroom("keys", "create", "cli-change", "--permission-set", "read_only", "--expires", "10", "--json").json
    changed = strongroom(
        "keys", "update", made["id"], "--name", "cli-changed", "--permission-set", "predict", "--quota", "upload=5/hour"
    )
    assert changed.status == 0, changed.err
    assert "cli-changed" in changed.out
    assert "upload: 5 per hour" in changed.out
    assert strongroom("keys", "extend", made["id"], "--days", "5").out.startswith(
        f"cli-changed ({made['id']}) now expires "
    )
    shown = strongroom("keys", "show", made["id"], "--json").json
    assert shown["permission_set"] == "predict"
    assert shown["expires_at"] > made["expires_at"]
    cleared = strongroom("keys", "update", made["id"], "--clear-quotas", "--json").json
    assert cleared["quotas"] == []


@pytest.mark.row("S1.10")
@pytest.mark.row("S3.6")
def test_a_key_rotates_and_both_secrets_work_for_the_grace(strongroom: Terminal, stack: Stack) -> None:
    made = strongroom("keys", "create", "cli-rotate", "--permission-set", "read_only", "--json").json
    second = strongroom("keys", "rotate", made["id"], "--grace", "1h").out.strip()
    assert second.startswith("sr_")
    assert second != made["key"]
    assert Terminal(stack.url, made["key"])("ls").status == 0
    assert Terminal(stack.url, second)("ls").status == 0
    third = strongroom("keys", "rotate", made["id"], "--grace", "0", "--json").json
    assert third["version"] == 3
    assert [Terminal(stack.url, key)("ls").status for key in (made["key"], second, third["key"])] == [1, 1, 0]
    shown = strongroom("keys", "show", made["id"]).out
    assert "works until" not in shown
    assert not any(key in shown for key in (made["key"], second, third["key"]))


@pytest.mark.row("B7")
def test_any_alias_but_champion(strongroom: Terminal) -> None:
    made = strongroom(
        *("keys", "create", "cli-release", "--permission-set", "read_only", "--scope", "managers/fraud/**"),
        *("--allow", "models.alias on managers/fraud/models/*/aliases/*"),
        *("--deny", "models.alias on managers/fraud/models/*/aliases/champion"),
        "--json",
    ).json
    assert [grant["effect"] for grant in made["grants"]] == ["allow", "allow", "deny"]
    for alias, allowed in (("candidate", True), ("champion", False)):
        resource = f"managers/fraud/models/scorer/aliases/{alias}"
        told = strongroom("access", "explain", f"key:{made['id']}", "models.alias", resource, "--json").json
        assert told["allowed"] is allowed
    told = strongroom("access", "explain", f"key:{made['id']}", "models.alias", resource).out
    assert "deny models.alias on managers/fraud/models/*/aliases/champion" in told


def test_keys_of_keys_are_revoked_with_it(strongroom: Terminal, stack: Stack) -> None:
    maker = strongroom("keys", "create", "cli-maker", "--permission-set", "full_access", "--json").json
    child = Terminal(stack.url, maker["key"])(
        "keys", "create", "cli-child", "--permission-set", "read_only", "--json"
    ).json
    done = strongroom("keys", "revoke", maker["id"], "--cascade")
    assert done.out == f"revoked cli-maker ({maker['id']}) and the keys made with it\n"
    assert Terminal(stack.url, child["key"])("ls").status == 1


@pytest.mark.row("S3.6")
def test_the_report_of_ages(strongroom: Terminal) -> None:
    made = strongroom("keys", "create", "cli-aged", "--permission-set", "read_only", "--json").json
    report = strongroom("keys", "ages", "--max-age", "180", "--json").json
    assert report["max_age_days"] == 180
    assert {key["id"]: key["status"] for key in report["keys"]}[made["id"]] == "ok"
    assert made["id"] in strongroom("keys", "ages").out


def test_a_key_for_somebody_else(strongroom: Terminal) -> None:
    user = strongroom("users", "create", "keyholder@example.org", "--role", "viewer", "--json").json
    owner = f"user:{user['id']}"
    made = strongroom("keys", "create", "cli-owned", "--permission-set", "read_only", "--owner", owner, "--json").json
    assert made["owner"] == owner
    assert [key["id"] for key in strongroom("keys", "list", "--owner", owner, "--json").json["api_keys"]] == [
        made["id"]
    ]


@pytest.mark.row("S2.8")
def test_a_terminal_is_asked_for_everything(stack: Stack, strongroom: Terminal) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
    environment = kept | {"STRONGROOM_URL": stack.url, "STRONGROOM_API_KEY": stack.admin_key}
    dialogue = Dialogue([str(STRONGROOM), "keys", "create"], environment, catch_output=True)
    dialogue.answer("Name", "")
    dialogue.answer("Name", "cli-asked")
    dialogue.answer("What is it for", "")
    custom = len(strongroom("keys", "sets", "--json").json["permission_sets"]) + 1
    dialogue.answer("Number", "99")
    dialogue.answer("Number", str(custom))
    dialogue.answer("Permissions", "models.read, secrets.list")
    dialogue.answer("Limit it to", "")
    dialogue.answer("Days until", "0")
    dialogue.answer("Create it?", "y")
    status, key = dialogue.end()
    assert status == 0, dialogue.shown
    assert "models.read, secrets.list on everything" in dialogue.shown
    made = Terminal(stack.url, key.strip())("whoami", "--json").json
    assert made["name"] == "cli-asked"
    assert [grant["permissions"] for grant in made["grants"]] == [["models.read", "secrets.list"]]


@pytest.mark.row("S2.8")
def test_who_says_no_gets_no_key(stack: Stack, strongroom: Terminal) -> None:
    environment = dict(os.environ) | {"STRONGROOM_URL": stack.url, "STRONGROOM_API_KEY": stack.admin_key}
    dialogue = Dialogue([str(STRONGROOM), "keys", "create"], environment)
    for question, text in (("Name", "cli-no"), ("What is", ""), ("Number", "1"), ("Limit", ""), ("Days", "")):
        dialogue.answer(question, text)
    dialogue.answer("Create it?", "n")
    status, shown = dialogue.end()
    assert (status, "nothing was created" in shown) == (1, True)
    assert "cli-no" not in strongroom("keys", "list").out


def test_a_terminal_is_asked_before_the_key_it_uses_is_revoked(stack: Stack, strongroom: Terminal) -> None:
    made = strongroom("keys", "create", "cli-own", "--permission-set", "full_access", "--json").json
    environment = dict(os.environ) | {"STRONGROOM_URL": stack.url, "STRONGROOM_API_KEY": made["key"]}
    dialogue = Dialogue([str(STRONGROOM), "keys", "revoke", made["id"]], environment)
    dialogue.answer("unless there is another administrator. Revoke it?", "n")
    status, shown = dialogue.end()
    assert (status, "nothing was revoked" in shown) == (1, True)
    own = Terminal(stack.url, made["key"])
    assert own("keys", "revoke", made["id"], "--yes").out.startswith("revoked cli-own ")
    assert own("ls").status == 1


def test_the_shell_completes_what_the_server_knows(strongroom: Terminal) -> None:
    words = {"COMP_WORDS": "strongroom keys create k --permission-set tr", "COMP_CWORD": "5"}
    assert strongroom(_STRONGROOM_COMPLETE="complete_bash", **words).out.split() == ["train", "training_pipeline"]
    words = {"COMP_WORDS": "strongroom keys create k --permission ml.", "COMP_CWORD": "5"}
    assert strongroom(_STRONGROOM_COMPLETE="complete_bash", **words).out.split() == ["ml.predict", "ml.train"]
