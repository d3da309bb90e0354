"""`strongroom managers …` as it is typed, and `client.managers`."""

import os
import uuid
from pathlib import Path

import pytest

from strongroom import Client
from strongroom.errors import NotFound
from tests.stack import Stack
from tests.terminal import Terminal


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
