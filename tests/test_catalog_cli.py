"""`strongroom alias`, `stage`, `tag`, `card`, `lineage`, `search` as they are typed, and the client behind them."""

import threading
from pathlib import Path

import pytest

from strongroom import Client
from strongroom.errors import Conflict, FailedPrecondition, NotFound
from strongroom.models.v1 import catalog_pb2 as pb
from tests.catalog import Model, fresh, model
from tests.stack import Stack
from tests.terminal import Terminal


@pytest.fixture
def strongroom(stack: Stack) -> Terminal:
    return Terminal.of(stack)


@pytest.fixture
def scorer(stack: Stack) -> Model:
    return model(stack, "v1", "v2")


@pytest.mark.row("B4")
def test_push_and_pull_by_alias(strongroom: Terminal, tmp_path: Path) -> None:
    name, source, copy = fresh("cli"), tmp_path / "w.bin", tmp_path / "copy.bin"
    for version in ("v1", "v2"):
        source.write_bytes(version.encode())
        done = strongroom("push", name, source, "--version", version, "--alias", f"is-{version}")
        assert done.out.endswith(f", {name}:is-{version} names it\n"), done.err
    assert strongroom("pull", f"{name}:is-v1", copy).out.startswith(f"pulled {name}@v1: ")
    assert copy.read_bytes() == b"v1"
    assert strongroom("verify", f"{name}:is-v2").out.startswith(f"{name}@v2 is intact")
    assert strongroom("show", f"{name}:is-v2").out.splitlines()[1] == "aliases: is-v2"
    gone = strongroom("pull", f"{name}:is-v3", copy)
    assert (gone.status, gone.err) == (1, f"strongroom: Model '{name}' has no alias 'is-v3'.\n")
    assert strongroom("rm", f"{name}:is-v1", "--yes").status == 2
    refused = strongroom("rm", f"{name}@v1", "--yes")
    assert (refused.status, "alias 'is-v1'" in refused.err) == (1, True)


@pytest.mark.row("B4")
def test_aliases_and_stages(strongroom: Terminal, scorer: Model) -> None:
    name = scorer.name
    assert strongroom("alias", name, "champion", "v1").out == f"{name}:champion names v1\n"
    assert strongroom("alias", name, "champion", "v2").out == f"{name}:champion names v2 (was v1)\n"
    assert strongroom("alias", name).out.split("\t")[:2] == ["champion", "v2"]
    refused = strongroom("alias", name, "champion", "v1", "--etag", "0")
    assert (refused.status, "Read it again" in refused.err) == (1, True)
    assert "has no metric 'auc'" in strongroom("alias", name, "champion", "v1", "--if-better", "auc").err
    assert strongroom("stage", f"{name}:champion", "production").out == f"{name}@v2 is at stage production\n"
    assert strongroom("ls", name).out.splitlines()[0].split("\t")[4:6] == ["production", "champion"]
    assert strongroom("alias", name, "champion", "--delete").out == f"{name}:champion no longer names v2\n"
    for wrong in (["--delete"], ["champion"], ["champion", "v1", "--delete"]):
        assert strongroom("alias", name, *wrong).status == 2


@pytest.mark.row("B4")
def test_tags_cards_and_search(strongroom: Terminal, scorer: Model, tmp_path: Path) -> None:
    name, readme = scorer.name, tmp_path / "README.md"
    readme.write_text("# Scorer\nfails on Sundays\n")
    assert strongroom("tag", name, f"team={name}").out == f"team\t{name}\n"
    assert strongroom("tag", f"{name}@v1", "seed=7", "gpu=a100").out == "gpu\ta100\nseed\t7\n"
    assert strongroom("tag", f"{name}@v1", "--remove", "gpu").out == "seed\t7\n"
    assert strongroom("card", name, readme).status == 0
    assert strongroom("card", name).out == readme.read_text()
    assert strongroom("tag", name).out == f"team\t{name}\n"
    assert strongroom("search", "--models", "--tag", f"team={name}", "--query", "SUNDAYS").out.startswith(name)
    assert strongroom("search", f"^{name}@v.$", "--tag", "seed=7").out == f"{name}@v1\tnone\t\tseed=7\n"
    assert "no regular expression" in strongroom("search", "[").err
    assert strongroom("tag", name, "team").status == 2


@pytest.mark.row("B4")
def test_lineage(strongroom: Terminal, scorer: Model) -> None:
    name = scorer.name
    parents = ["--from", f"fine-tuned-from={name}@v1", "--from", "trained-on=s3://data/2026?day=1"]
    done = strongroom("lineage", f"{name}@v2", *parents)
    assert sorted(done.out.splitlines()) == [
        f"{name}@v1\tfine-tuned-from\t{name}@v2",
        f"s3://data/2026?day=1\ttrained-on\t{name}@v2",
    ]
    assert strongroom("lineage", f"{name}@v1").out == f"{name}@v1\tfine-tuned-from\t{name}@v2\n"


@pytest.mark.row("B4")
def test_the_client(stack: Stack, scorer: Model, tmp_path: Path) -> None:
    with Client(stack.url, api_key=stack.admin_key) as client:
        made = client.aliases.set(scorer.name, "champion", "v1", etag="0")
        with pytest.raises(Conflict):
            client.aliases.set(scorer.name, "champion", "v2", etag="0")
        with pytest.raises(FailedPrecondition):
            client.aliases.set(scorer.name, "champion", "v2", if_better="auc")
        pulled = client.models.pull(scorer.name, f"{tmp_path}/", alias="champion")
        assert pulled.version.version == client.aliases.get(scorer.name, "champion").version == "v1"
        client.aliases.delete(scorer.name, "champion", etag=made.etag)
        with pytest.raises(NotFound):
            client.models.pull(scorer.name, f"{tmp_path}/", alias="champion")
        parent = pb.Parent(model_name=scorer.name, version="v1", relationship="from")
        assert len(client.catalog.set_parents(scorer.name, "v2", [parent]).edges) == 1


@pytest.mark.row("B4")
def test_two_clients_that_tag_at_the_same_time_lose_nothing(stack: Stack, scorer: Model) -> None:
    def work(name: str) -> None:
        with Client(stack.url, api_key=stack.admin_key) as client:
            for number in range(5):
                client.catalog.update_model(scorer.name, tags={f"{name}{number}": ""})

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Client(stack.url, api_key=stack.admin_key) as client:
        assert set(client.catalog.model(scorer.name).tags) == {
            f"{name}{number}" for name in "ab" for number in range(5)
        }


@pytest.mark.row("S3.5")
def test_the_clients_artifacts(stack: Stack) -> None:
    with Client(stack.url, api_key=stack.admin_key) as client:
        address = f"https://example.com/{fresh('data')}"
        data = client.artifacts.register("dataset", address, size_bytes=2_000_000)
        needs = {data.metadata.id: "trained_on"}
        made = client.artifacts.register("model", address, size_bytes=1_000_000, dependencies=needs)
        id_ = made.metadata.id
        assert client.artifacts.cost("model", id_) == {id_: {"total_cost": 1}}
        assert client.artifacts.cost("model", id_, dependency=True)[id_] == {"standalone_cost": 1, "total_cost": 3}
        assert len(client.artifacts.lineage("model", id_).nodes) == 2
        made.data.readme = "# changed"
        assert client.artifacts.update(made).data.readme == "# changed"
        with pytest.raises(Conflict):
            client.artifacts.update(made)
        assert [found.id for found in client.artifacts.search(name=made.metadata.name, types=["model"])] == [id_]
        client.artifacts.unregister("model", id_)
