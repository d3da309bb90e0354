"""`strongroom secrets` as it is typed: what was put comes back, and nothing of it is said by accident."""

import json
import stat
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from strongroom.cli import secret_ages
from tests.stack import STRONGROOM, Stack, inherited
from tests.terminal import Terminal


@pytest.fixture
def secrets(stack: Stack) -> Terminal:
    return Terminal.of(stack)


def test_a_secret_from_put_to_rm(secrets: Terminal) -> None:
    assert secrets("secrets", "put", "cli/life", "user=ada", "password=p=1").out == "wrote cli/life, version 1\n"
    assert secrets("secrets", "get", "cli/life").out == "password=p=1\nuser=ada\n"
    assert secrets("secrets", "put", "cli/life", "password=two").out == "wrote cli/life, version 2\n"
    assert secrets("secrets", "get", "cli/life", "--field", "password").out == "two\n"
    assert secrets("secrets", "get", "cli/life", "--field", "password", "--version", "1").out == "p=1\n"
    history = secrets("secrets", "history", "cli/life").out.splitlines()
    assert [line.split("\t")[0] for line in history] == ["2", "1"]
    assert secrets("secrets", "list", "cli/life").out.startswith("cli/life\t2\t")
    back = "strongroom secrets undelete cli/life"
    assert secrets("secrets", "rm", "cli/life").out == f"deleted cli/life; back with: {back}\n"
    gone = secrets("secrets", "get", "cli/life")
    assert (gone.status, gone.out) == (1, "")
    assert secrets("secrets", "undelete", "cli/life").out == "cli/life is back\n"
    assert secrets("secrets", "get", "cli/life").out == "password=two\n"
    assert secrets("secrets", "destroy", "cli/life", "--version", 1).out == "destroyed cli/life: 1 version\n"
    assert secrets("secrets", "destroy", "cli/life").status == 2
    assert secrets("secrets", "destroy", "cli/life", "--all").out == "destroyed cli/life: 1 version\n"
    assert secrets("secrets", "history", "cli/life").status == 1


def test_values_come_from_standard_input_and_files(secrets: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("-----BEGIN\nline\n")
    secrets("secrets", "put", "cli/stdin", "token=-", f"cert=@{file}", stdin="s3cret\n")
    assert secrets("secrets", "get", "cli/stdin", "--field", "token").out == "s3cret\n"
    assert secrets("secrets", "get", "cli/stdin", "--field", "cert").out == "-----BEGIN\nline\n"


def test_a_whole_object_comes_from_standard_input_or_a_file(secrets: Terminal, tmp_path: Path) -> None:
    data = {"port": 5432, "ratio": 0.5, "tls": True, "none": None, "hosts": ["a", {"b": 1}]}
    secrets("secrets", "put", "cli/object", "-", stdin=json.dumps(data))
    assert secrets("secrets", "get", "cli/object", "--json").json["data"] == data
    assert secrets("secrets", "get", "cli/object", "--field", "port").out == "5432\n"
    assert secrets("secrets", "get", "cli/object", "--field", "hosts").out == '["a", {"b": 1}]\n'
    file = tmp_path / "secret.json"
    file.write_text('{"port": 1}')
    secrets("secrets", "put", "cli/object", "--file", file)
    assert secrets("secrets", "get", "cli/object", "--json").json["data"] == {"port": 1}


@pytest.mark.parametrize("number", ["9007199254740993", "-123456789012345678", "1" + "0" * 400])
def test_a_number_that_would_lose_digits_is_refused(secrets: Terminal, number: str) -> None:
    done = secrets("secrets", "put", "cli/number", "-", stdin=f'{{"account": [{{"number": {number}}}]}}')
    assert (done.status, done.out) == (1, "")
    assert done.err == "strongroom: A whole number beyond 2^53 would lose digits. Write it as text.\n"


def test_json_answers(secrets: Terminal) -> None:
    written = secrets("secrets", "put", "cli/json", "k=v", "--json").json
    assert (written["name"], written["version"]) == ("cli/json", 1)
    assert secrets("secrets", "get", "cli/json", "--json").json.keys() == {
        "name", "version", "data", "created_at", "created_by", "stage", "provider", "revision",
    }  # fmt: skip
    listed = secrets("secrets", "list", "cli/json", "--json").json
    assert [secret["name"] for secret in listed["secrets"]] == ["cli/json"]
    assert [version["version"] for version in secrets("secrets", "history", "cli/json", "--json").json["versions"]] == [
        1
    ]
    assert secrets("secrets", "rm", "cli/json", "--json").json == {"name": "cli/json"}
    gone = secrets("secrets", "destroy", "cli/json", "--all", "--json").json
    assert gone == {"name": "cli/json", "destroyed_versions": 1}


def test_a_write_can_depend_on_the_version(secrets: Terminal) -> None:
    assert secrets("secrets", "put", "cli/cas", "k=1", "--expected-version", "0").status == 0
    refused = secrets("secrets", "put", "cli/cas", "k=2", "--expected-version", "0")
    assert refused.status == 1
    assert refused.err.startswith("strongroom: ")


def test_a_field_that_is_not_there(secrets: Terminal) -> None:
    secrets("secrets", "put", "cli/field", "user=ada", "password=hush")
    done = secrets("secrets", "get", "cli/field", "--field", "pasword")
    assert (done.status, done.out) == (1, "")
    assert done.err == "strongroom: secret cli/field has no field pasword; it has: password, user\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("hush",),
        ("=hush",),
        ("k=hush", "k=hush"),
        ("a=-", "b=-"),
        ("k=hush", "--file", "-"),
        ("k=@hush/missing",),
        ("--file", "/nonexistent"),
        ("-",),
    ],
)
def test_wrong_usage_does_not_repeat_the_value(secrets: Terminal, arguments: tuple[str, ...]) -> None:
    done = secrets("secrets", "put", "cli/wrong", *arguments, stdin="hush")
    assert (done.status, done.out) == (2, "")
    assert "hush" not in done.err
    assert done.err.count("\n") == 1


def test_a_version_is_staged_promoted_and_rolled_back(secrets: Terminal) -> None:
    secrets("secrets", "put", "cli/stage", "k=one")
    assert secrets("secrets", "put", "cli/stage", "k=two", "--pending").out == "wrote cli/stage, version 2 (pending)\n"
    assert secrets("secrets", "get", "cli/stage").out == "k=one\n"
    assert secrets("secrets", "get", "cli/stage", "--stage", "pending").out == "k=two\n"
    assert secrets("secrets", "promote", "cli/stage").out == "cli/stage: version 2 is current\n"
    history = secrets("secrets", "history", "cli/stage").out.splitlines()
    assert [line.split("\t")[3] for line in history] == ["current", "previous"]
    done = secrets("secrets", "rollback", "cli/stage")
    assert done.out == "wrote cli/stage, version 3: the value of the previous\n"
    assert secrets("secrets", "get", "cli/stage").out == "k=one\n"
    secrets("secrets", "put", "cli/stage", "k=three", "--pending")
    assert secrets("secrets", "discard", "cli/stage").out == "cli/stage: version 4 is destroyed\n"
    assert secrets("secrets", "discard", "cli/stage").err == "strongroom: secret cli/stage has no pending version\n"
    assert secrets("secrets", "put", "cli/stage", "k=v", "--pending", "--expected-version", "3").status == 2


def test_single_fields_are_changed_and_removed(secrets: Terminal) -> None:
    secrets(
        "secrets",
        "put",
        "cli/patch",
        "-",
        stdin='{"user": "ada", "port": 5432, "old": null, "key": {"$base64": "/w=="}}',
    )
    done = secrets("secrets", "patch", "cli/patch", "password=-", "--remove", "old", stdin="hush\n")
    assert done.out == "wrote cli/patch, version 2\n"
    data = secrets("secrets", "get", "cli/patch", "--json").json["data"]
    assert data == {"user": "ada", "port": 5432, "password": "hush", "key": {"$base64": "/w=="}}
    assert secrets("secrets", "patch", "cli/patch").status == 2
    assert secrets("secrets", "patch", "cli/none", "a=b").status == 1


def test_secrets_are_drawn_as_a_tree_and_listed_by_folder(secrets: Terminal) -> None:
    for name in ("a", "b/c", "b/d/e", "b/d/f", "g/h/i"):
        secrets("secrets", "put", f"cli-tree/{name}", "k=v")
    assert secrets("secrets", "list", "cli-tree/", "--tree").out == (
        "cli-tree/\n  a\n  b/\n    c\n    d/\n      e\n      f\n  g/\n    h/\n      i\n"
    )
    lines = secrets("secrets", "list", "cli-tree/", "--folder").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["cli-tree/a", "cli-tree/b/", "cli-tree/g/"]
    page = secrets("secrets", "list", "cli-tree/b/", "--folder", "--json").json
    assert (page["folders"], page["secrets"][0]["name"]) == (["cli-tree/b/d/"], "cli-tree/b/c")


def test_secrets_are_labelled_searched_and_expire(secrets: Terminal) -> None:
    secrets("secrets", "put", "cli-find/Payments", "k=hush", "--label", "team=cli-fraud", "--expires", "30d")
    secrets("secrets", "put", "cli-find/other", "k=hush")
    [line] = secrets("secrets", "search", "PAY", "find").out.splitlines()
    name, version, _, labels, expires = line.split("\t")
    assert (name, version, labels, expires[:2]) == ("cli-find/Payments", "1", "team=cli-fraud", "20")
    assert secrets("secrets", "search", "--label", "team=cli-fraud").out.startswith("cli-find/Payments")
    assert secrets("secrets", "search", "cli-find", "hush").out == ""
    assert secrets("secrets", "search").status == 2
    secrets("secrets", "label", "cli-find/other", "team=cli-fraud", "tier=1", "--expires", "2099-01-31")
    found = secrets("secrets", "search", "--label", "team=cli-fraud", "--json").json["secrets"]
    assert [secret["name"] for secret in found] == ["cli-find/Payments", "cli-find/other"]
    assert found[1]["expires_at"].startswith("2099-01-3")
    edited = secrets("secrets", "label", "cli-find/other", "--remove", "team", "--never-expires", "--json").json
    assert (edited["labels"], "expires_at" in edited) == ({"tier": "1"}, False)
    assert secrets("secrets", "put", "cli-find/other", "k=hush", "--expires", "tomorrow").status == 2


@pytest.mark.row("S3.6")
def test_the_age_of_secrets_is_told_by_a_policy(secrets: Terminal) -> None:
    for name in ("older", "newer"):
        secrets("secrets", "put", f"cli/aged/{name}", "n=1")
    told = secrets("secrets", "ages", "cli/aged/", "--max-age", 180).out.splitlines()
    assert [line.split("\t")[:4] for line in told] == [
        ["cli/aged/older", "1", "0 d", "ok"],
        ["cli/aged/newer", "1", "0 d", "ok"],
    ]
    assert secrets("secrets", "ages", "cli/aged/", "--overdue").out == ""
    report = json.loads(secrets("secrets", "ages", "cli/aged/", "--json").out)
    assert (report["max_age_days"], report["secrets"][0]["age_days"]) == (90, 0)


@pytest.mark.parametrize(("days", "status"), [(0, "ok"), (80, "ok"), (81, "due"), (90, "due"), (91, "overdue")])
def test_the_last_tenth_of_a_policy_is_the_time_to_rotate(days: int, status: str) -> None:
    assert secret_ages.status(timedelta(days=days), timedelta(days=90)) == status


def test_a_deleted_secret_is_listed_where_it_is_asked_for(secrets: Terminal) -> None:
    secrets("secrets", "put", "cli-deleted/one", "k=v")
    secrets("secrets", "rm", "cli-deleted/one", "--yes")
    assert secrets("secrets", "list", "cli-deleted/").out == ""
    assert secrets("secrets", "list", "cli-deleted/", "--deleted").out.endswith("\tdeleted\n")


def test_bytes_come_from_a_file_and_go_to_one(secrets: Terminal, tmp_path: Path) -> None:
    content = bytes(range(256))
    (tmp_path / "key.bin").write_bytes(content)
    secrets("secrets", "put", "cli/binary", f"key=@{tmp_path}/key.bin", "user=ada")
    back = tmp_path / "back.bin"
    assert secrets("secrets", "get", "cli/binary", "--field", "key", "--output", back).status == 0
    assert back.read_bytes() == content
    assert stat.S_IMODE(back.stat().st_mode) == 0o600
    refused = secrets("secrets", "get", "cli/binary", "--field", "user", "--output", back)
    assert refused.err == f"strongroom: {back} is there already; --force replaces it\n"
    assert secrets("secrets", "get", "cli/binary", "--field", "user", "--output", back, "--force").status == 0
    assert back.read_text() == "ada\n"
    piped = subprocess.run(
        [STRONGROOM, "secrets", "get", "cli/binary", "-k", "key"],
        env=inherited() | {"STRONGROOM_URL": secrets.url, "STRONGROOM_API_KEY": secrets.api_key},
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert piped.stdout == content
