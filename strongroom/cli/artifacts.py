"""`strongroom artifacts`: list, search, show, create, update, delete, lineage, cost; made and tree of `made.py`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.cli.made import made, tree
from strongroom.cli.markdown import read_markdown
from strongroom.cli.session import (
    Json,
    as_json,
    confirmed,
    connected,
    human_size,
    misused,
    print_json,
    print_message,
    print_table,
    say,
)

if TYPE_CHECKING:
    from strongroom.models.v1.artifacts_pb2 import Artifact

app = typer.Typer(
    help="The registry of models, datasets and code by their addresses, and what jobs made.", no_args_is_help=True
)
app.command()(made)
app.command()(tree)

Type = Annotated[str, typer.Argument(metavar="TYPE", help="model, dataset or code.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The artifact's id.")]
# Without a type it is one that a job made.
TypeOrId = Annotated[str, typer.Argument(metavar="[TYPE]", help="model, dataset or code; none if a job made it.")]
IdAfter = Annotated[str, typer.Argument(metavar="ID", help="The artifact's id.", show_default=False)]
Types = Annotated[list[str] | None, typer.Option("--type", metavar="TYPE", help="Of this type; may be repeated.")]
Size = Annotated[int | None, typer.Option("--size-bytes", min=0, help="How large it is, if it is not stored here.")]
Readme = Annotated[Path | None, typer.Option("--readme", help="A Markdown file of at most 64 KiB.")]
Needs = Annotated[
    list[str] | None, typer.Option("--needs", metavar="RELATIONSHIP=ID", help="Another artifact; may be repeated.")
]


@app.command("list")
def list_(types: Types = None, json: Json = False) -> None:
    """List artifacts."""
    _found(json=json, types=types or [])


@app.command()
def search(
    regex: Annotated[str, typer.Argument(help="A regular expression (RE2) in name or readme.")] = "",
    name: Annotated[str, typer.Option(help="Exactly this name.")] = "",
    types: Types = None,
    json: Json = False,
) -> None:
    """Find artifacts.

    Example: strongroom artifacts search '^squad' --type dataset
    """
    _found(json=json, regex=regex, name=name, types=types or [])


@app.command()
def show(artifact_type: TypeOrId, artifact_id: IdAfter = "", json: Json = False) -> None:
    """Show an artifact; one that a job made with its data, as JSON."""
    with connected() as client:
        if not artifact_id:
            print_json(as_json(client.ml.get(artifact_type)))
            return
        shown = client.artifacts.get(artifact_type, artifact_id)

    def for_people() -> None:
        data = shown.data
        rows = [["name", shown.metadata.name], ["type", shown.metadata.type], ["id", shown.metadata.id]]
        rows += [["address", data.url]] + ([["files", data.download_url]] if data.download_url else [])
        rows += [["size", human_size(data.size_bytes)]] if data.size_bytes else []
        rows += [["needs", f"{item.relationship}={item.artifact_id}"] for item in data.dependencies]
        print_table(["field", "value"], rows)
        for line in data.readme.splitlines():
            say(line)

    print_message(shown, for_people, as_json_document=json)


@app.command()
def create(
    artifact_type: Type,
    url: Annotated[str, typer.Argument(help="https, s3 or gs; strongroom://MANAGER/MODEL/VERSION if stored here.")],
    name: Annotated[str, typer.Option(help="The last part of the address if not given.")] = "",
    size_bytes: Size = None,
    readme: Readme = None,
    needs: Needs = None,
    json: Json = False,
) -> None:
    """Register an artifact. Prints its id.

    Example: strongroom artifacts create dataset https://example.com/squad --size-bytes 35000000
    """
    with connected() as client:
        created = client.artifacts.register(
            artifact_type,
            url,
            name=name,
            size_bytes=size_bytes or 0,
            readme="" if readme is None else read_markdown(readme),
            dependencies=_needs(needs or []),
        )
    print_message(created, lambda: say(created.metadata.id), as_json_document=json)


@app.command()
def update(
    artifact_type: Type,
    artifact_id: Id,
    url: Annotated[str, typer.Option(help="Its new address.")] = "",
    size_bytes: Size = None,
    readme: Readme = None,
    needs: Needs = None,
    json: Json = False,
) -> None:
    """Change what is given and keep the rest; --needs replaces all. Refused if somebody changes it at the same time.

    Example: strongroom artifacts update dataset ID --readme README.md
    """
    if not (url or needs) and size_bytes is None and readme is None:
        misused("nothing to change: give --url, --size-bytes, --readme or --needs")
    with connected() as client:
        artifact = client.artifacts.get(artifact_type, artifact_id)
        _change(artifact, url=url, size_bytes=size_bytes, readme=readme, needs=needs)
        updated = client.artifacts.update(artifact)
    print_message(updated, lambda: say(f"updated {updated.metadata.name}"), as_json_document=json)


@app.command()
def delete(
    artifact_type: TypeOrId,
    artifact_id: IdAfter = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove an artifact from the registry; what it stood for stays. What a job made goes for good."""
    if not artifact_id:
        _delete_made(artifact_type, yes=yes)
        return
    confirmed(f"Remove the {artifact_type} {artifact_id} from the registry?", yes=yes)
    with connected() as client:
        gone = client.artifacts.unregister(artifact_type, artifact_id)
    print_message(gone, lambda: say(f"removed {gone.metadata.name}"), as_json_document=json)


@app.command()
def lineage(artifact_type: Type, artifact_id: Id, json: Json = False) -> None:
    """Show what an artifact needs, step by step."""
    with connected() as client:
        graph = client.artifacts.lineage(artifact_type, artifact_id)
    called = {node.artifact_id: node.name for node in graph.nodes}
    rows = [
        [called.get(edge.from_node_artifact_id, ""), edge.relationship, called.get(edge.to_node_artifact_id, "")]
        for edge in graph.edges
    ]
    print_message(graph, lambda: print_table(["artifact", "relationship", "of"], rows), as_json_document=json)


@app.command()
def cost(
    artifact_type: Type,
    artifact_id: Id,
    dependency: Annotated[bool, typer.Option("--dependency", help="With everything that it needs.")] = False,
    json: Json = False,
) -> None:
    """Say what it costs to download an artifact, in MB."""
    with connected() as client:
        costs = client.artifacts.cost(artifact_type, artifact_id, dependency=dependency)
    if json:
        print_json(costs)
    else:
        print_table(["id", "MB"], [[id_, f"{item['total_cost']:g}"] for id_, item in costs.items()])


def _delete_made(artifact_id: str, *, yes: bool) -> None:
    confirmed(f"Delete the artifact {artifact_id} for good, with the version of a trained model?", yes=yes)
    with connected() as client:
        client.ml.delete(artifact_id)
    say(f"{artifact_id} deleted")


def _found(*, json: bool, **wanted: Any) -> None:
    with connected() as client:
        found = list(client.artifacts.search(**wanted))
    if json:
        print_json({"artifacts": [as_json(item) for item in found], "next_page_token": ""})
    else:
        print_table(["id", "type", "name"], [[item.id, item.type, item.name] for item in found])


def _change(
    artifact: "Artifact", *, url: str, size_bytes: int | None, readme: Path | None, needs: list[str] | None
) -> None:
    if url:
        artifact.data.url = url
    if size_bytes is not None:
        artifact.data.size_bytes = size_bytes
    if readme is not None:
        artifact.data.readme = read_markdown(readme)
    if needs:
        del artifact.data.dependencies[:]
        for artifact_id, relationship in _needs(needs).items():
            artifact.data.dependencies.add(artifact_id=artifact_id, relationship=relationship)


def _needs(texts: list[str]) -> dict[str, str]:
    """Id → relationship."""
    for text in texts:
        relationship, _, artifact_id = text.partition("=")
        if not (relationship and artifact_id):
            misused(f"{text!r} names no artifact; one looks like trained_on=ID")
    return {artifact_id: relationship for relationship, _, artifact_id in (text.partition("=") for text in texts)}
