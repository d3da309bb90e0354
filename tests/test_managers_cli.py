"""`strongroom managers …` as it is typed, and `client.managers`."""

import os
import uuid
from pathlib import Path

import pytest

from strongroom import Client
from strongroom.errors import InvalidArgument, NotFound
from tests.stack import Stack
from tests.terminal import Terminal
from tests.test_gateway_rest import admin, assert_problem


@pytest.fixture
def strongroom(stack: Stack) -> Terminal:
    return Terminal.of(stack)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "scorer.bin"
    file.write_bytes(os.urandom(100_000))
    return file


@pytest.mark.row("S0.1")
def test_a_manager_from_create_to_delete(strongroom: Terminal, weights: Path) -> None:
    name = f"cli-{uuid.uuid4().hex}"
    created = strongroom("managers", "create", "regression", "--id", name, "--primary-metric", "mse")
    assert (created.status, created.out) == (0, f"{name}\n")
    uploaded = strongroom("managers", "upload", name, weights).out
    path = uploaded.split(": ")[1].strip()
    assert uploaded.startswith("uploaded scorer: ./models/scorer_")
    assert strongroom("managers", "metrics", name, "scorer", "mse=0.25").out == "mse\t0.25\n"
    assert strongroom("managers", "metrics", name, "scorer@latest", "--json").json == {"metrics": {"mse": 0.25}}
    assert strongroom("managers", "save", name, "scorer").out == "saved scorer: ./models/scorer.pkl\n"
    assert strongroom("managers", "load", name, "scorer.pkl").out == "scorer.pkl is scorer, the best one\n"
    assert strongroom("managers", "verify", name, path).out == f"{path} is intact, encrypted\n"
    assert f"{name}\tregression\t./models\t1\tscorer\n" in strongroom("managers", "list").out
    shown = strongroom("managers", "show", name, "--json").json
    assert (shown["best_model"], shown["key_iterations"]) == ("scorer", 200_000)
    assert "compared by\tmse\n" in strongroom("managers", "show", name).out
    assert strongroom("managers", "delete", name, "--yes").out == f"deleted {name}\n"
    gone = strongroom("managers", "show", name)
    assert (gone.status, gone.err) == (1, f"strongroom: There is no manager '{name}'.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "regression", "--key-iterations", "1"),
        ("upload", "default", "no-such-file"),
        ("metrics", "default", "scorer", "mse=low"),
        ("load", "default", "x", "--access-code-file", "no-such-file"),
    ],
)
def test_wrong_usage_ends_with_status_2(strongroom: Terminal, arguments: tuple[str, ...]) -> None:
    done = strongroom("managers", *arguments)
    assert (done.status, done.out) == (2, "")
    assert "Traceback" not in done.err


def test_the_client(stack: Stack, weights: Path) -> None:
    with Client(stack.url, api_key=stack.admin_key) as client:
        manager = client.managers.create("classification", model_path="./models/c", primary_metric="f1")
        uploaded = client.managers.upload(manager, weights)
        assert client.managers.record_metrics(manager, "scorer", {"f1": 0.9}) == {"f1": 0.9}
        assert client.managers.metrics(manager, "scorer") == {"f1": 0.9}
        assert client.managers.load(manager, uploaded.filepath).is_best_model
        assert client.managers.verify(manager, uploaded.filepath).is_valid
        assert client.managers.save(manager, "scorer", "a/b.bin").filepath == "./models/c/a/b.bin"
        assert client.models.read("scorer", "scorer.bin", manager=manager) == weights.read_bytes()
        assert manager in [found.manager_id for found in client.managers.list()]
        client.managers.delete(manager)
        with pytest.raises(NotFound):
            client.managers.get(manager)


@pytest.mark.parametrize("code", ["ein Schlüssel", "two\nlines", " space", "", "x" * 1025])
def test_a_code_that_no_header_carries_is_refused_in_words(
    stack: Stack, strongroom: Terminal, weights: Path, tmp_path: Path, code: str
) -> None:
    """Before anything is sent; nor can a version be locked by a code that nobody can present when reading it."""
    with Client(stack.url, api_key=stack.admin_key) as client:
        for refused in (
            lambda: client.managers.upload("default", weights, access_code=code),
            lambda: client.managers.save("default", "scorer", access_code=code),
            lambda: client.models.push("scorer", weights, access_code=code),
            lambda: client.models.read("scorer", "scorer.bin", access_code=code),
        ):
            with pytest.raises(InvalidArgument, match="printable ASCII") as caught:
                refused()
            assert caught.value.reason == "ACCESS_CODE_INVALID"
    if code.strip() == code and "\n" not in code and code:
        file = tmp_path / "code"
        file.write_text(code)
        done = strongroom("managers", "upload", "default", weights, "--access-code-file", file)
        assert (done.status, "printable ASCII" in done.err) == (1, True)


def test_the_service_locks_no_version_by_such_a_code(stack: Stack, strongroom: Terminal, weights: Path) -> None:
    name = strongroom("managers", "create", "regression").out.strip()
    assert strongroom("managers", "upload", name, weights).status == 0
    body = {"model_name": "scorer", "access_code": "ein Schlüssel"}
    assert_problem(admin(stack, "POST", f"/api/managers/{name}/models/save", body), 400, "ACCESS_CODE_INVALID")
    assert strongroom("managers", "delete", name, "--yes").status == 0


@pytest.mark.row("S0.9")
def test_a_manager_whose_versions_are_in_use_is_deleted_on_purpose_alone(
    stack: Stack, strongroom: Terminal, weights: Path
) -> None:
    """As with one version: whoever may delete must not empty the aliases and stages that they may not touch."""
    name = f"used-{uuid.uuid4().hex}"
    assert strongroom("managers", "create", "regression", "--id", name).status == 0
    push = ("push", "scorer", weights, "--manager", name)
    assert strongroom(*push, "--version", "v1", "--alias", "champion").status == 0
    assert strongroom(*push, "--version", "v2").status == 0
    refused = strongroom("managers", "delete", name, "--yes")
    assert (refused.status, "scorer@v1" in refused.err, "alias 'champion'" in refused.err) == (1, True, True)
    assert strongroom("alias", "scorer", "champion", "--delete", "--manager", name).status == 0
    assert strongroom("stage", "scorer@v2", "production", "--manager", name).status == 0
    assert_problem(admin(stack, "DELETE", f"/api/managers/{name}"), 400, "VERSION_IN_USE")
    grants = ("--allow", f"models.delete,models.read on managers/{name}/**")
    deleter = strongroom("keys", "create", "deleter", *grants, "--json").json["key"]
    denied = Terminal(stack.url, deleter)("managers", "delete", name, "--yes", "--allow-in-use")
    assert (denied.status, "models.alias" in denied.err) == (1, True)
    assert admin(stack, "DELETE", f"/api/managers/{name}?allow_in_use=true").status == 200
    assert strongroom("managers", "show", name).status == 1
