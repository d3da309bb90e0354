"""`strongroom artifacts …` as it is typed."""

import uuid
from pathlib import Path

import pytest

from tests.stack import Stack
from tests.terminal import Terminal


@pytest.fixture
def strongroom(stack: Stack) -> Terminal:
    return Terminal.of(stack)


@pytest.mark.row("S3.5")
def test_an_artifact_from_create_to_delete(strongroom: Terminal, tmp_path: Path) -> None:
    name = f"squad-{uuid.uuid4().hex}"
    data = strongroom("artifacts", "create", "dataset", f"https://example.com/{name}", "--size-bytes", "35000000")
    assert (data.status, data.err) == (0, "")
    data_id = data.out.strip()
    url = f"s3://models/{name}-model"
    needs = ("--needs", f"trained_on={data_id}")
    created = strongroom("artifacts", "create", "model", url, "--size-bytes", "1000000", *needs, "--json").json
    model_id = created["metadata"]["id"]
    assert created["metadata"] == {"name": f"{name}-model", "id": model_id, "type": "model"}
    listed = strongroom("artifacts", "list", "--type", "model", "--json").json["artifacts"]
    assert model_id in [item["id"] for item in listed]
    assert {item["type"] for item in listed} == {"model"}
    found = strongroom("artifacts", "search", f"^{name}$", "--json").json["artifacts"]
    assert [item["id"] for item in found] == [data_id]
    assert strongroom("artifacts", "search", "--name", name).out == f"{data_id}\tdataset\t{name}\n"
    readme = tmp_path / "README.md"
    readme.write_text("# Questions\n")
    assert strongroom("artifacts", "update", "dataset", data_id, "--readme", readme).out == f"updated {name}\n"
    shown = strongroom("artifacts", "show", "dataset", data_id)
    assert ("# Questions\n" in shown.out, f"address\thttps://example.com/{name}\n" in shown.out) == (True, True)
    assert strongroom("artifacts", "show", "dataset", data_id, "--json").json["data"]["size_bytes"] == 35_000_000
    graph = strongroom("artifacts", "lineage", "model", model_id)
    assert graph.out == f"{name}\ttrained_on\t{name}-model\n"
    costs = strongroom("artifacts", "cost", "model", model_id, "--dependency", "--json").json
    assert costs[model_id]["total_cost"] == 36.0
    assert strongroom("artifacts", "delete", "model", model_id, "--yes").out == f"removed {name}-model\n"
    gone = strongroom("artifacts", "show", "model", model_id)
    assert (gone.status, gone.err.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("update", "dataset", "01J"),
        ("create", "model", "s3://a/b", "--needs", "01J"),
        ("create", "model", "s3://a/b", "--readme", "no-such-file"),
    ],
)
def test_wrong_usage_ends_with_status_2(strongroom: Terminal, arguments: tuple[str, ...]) -> None:
    done = strongroom("artifacts", *arguments)
    assert (done.status, done.out) == (2, "")


def test_nothing_is_removed_without_a_yes(strongroom: Terminal) -> None:
    assert strongroom("artifacts", "delete", "model", "01J").status != 0
