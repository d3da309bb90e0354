"""Of `strongroom artifacts`: those that jobs made, which have an id and no type."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.session import Json, as_json, connected, moment, print_json, print_message, print_table, say

if TYPE_CHECKING:
    from strongroom.models.v1.ml_artifacts_pb2 import MlArtifactTree

ArtifactId = Annotated[str, typer.Argument(metavar="ID", help="An artifact's id.")]


def made(json: Json = False) -> None:
    """List trained models, predictions and notes, the newest first."""
    with connected() as client:
        found = list(client.ml.list())
    if json:
        print_json([as_json(artifact) for artifact in found])
        return
    rows = [[a.id, str(a.level), a.parent_id.string_value, a.url, moment(a.created_at)] for a in found]
    print_table(["id", "level", "parent", "model", "created"], rows)


def tree(artifact_id: ArtifactId, json: Json = False) -> None:
    """Draw an artifact with those below it as a tree."""
    with connected() as client:
        root = client.ml.tree(artifact_id)

    def draw() -> None:
        say(_label(root))
        for line in _drawn(root, ""):
            say(line)

    print_message(root, draw, as_json_document=json)


def _drawn(node: "MlArtifactTree", before: str) -> Iterator[str]:
    for number, child in enumerate(node.children, 1):
        last = number == len(node.children)
        yield f"{before}{'└── ' if last else '├── '}{_label(child)}"
        yield from _drawn(child, before + ("    " if last else "│   "))


def _label(node: "MlArtifactTree") -> str:
    kind = node.url or ("prediction" if node.job_id else "note")
    return f"{node.id}  {kind}  {moment(node.created_at)}"
