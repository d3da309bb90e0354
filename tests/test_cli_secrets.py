"""`strongroom secrets` as it is typed: what was put comes back, and nothing of it is said by accident."""

import json
from pathlib import Path

import pytest

from tests.stack import Stack
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
    assert secrets("secrets", "rm", "cli/life").out == "deleted cli/life: 2 versions\n"
    gone = secrets("secrets", "get", "cli/life")
    assert (gone.status, gone.out) == (1, "")


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
        "name", "version", "data", "created_at", "created_by",
    }  # fmt: skip
    listed = secrets("secrets", "list", "cli/json", "--json").json
    assert [secret["name"] for secret in listed["secrets"]] == ["cli/json"]
    assert [version["version"] for version in secrets("secrets", "history", "cli/json", "--json").json["versions"]] == [
        1
    ]
    assert secrets("secrets", "rm", "cli/json", "--json").json == {"name": "cli/json", "destroyed_versions": 1}


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
