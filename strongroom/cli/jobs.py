"""`strongroom jobs`, `strongroom artifacts`: what runs, and what it made."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.session import (
    Json,
    as_json,
    confirmed,
    connected,
    moment,
    print_json,
    print_message,
    print_table,
    say,
)
from strongroom.cli.train import followed

if TYPE_CHECKING:
    from strongroom.models.v1.ml_artifacts_pb2 import MlArtifactTree

jobs = typer.Typer(help="See, follow and cancel jobs.", no_args_is_help=True)
artifacts = typer.Typer(help="See what jobs made.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]
ArtifactId = Annotated[str, typer.Argument(metavar="ID", help="An artifact's id.")]


@jobs.command("list")
def list_jobs(
    status: Annotated[str, typer.Option(help="Those in this state alone, such as running.")] = "",
    json: Json = False,
) -> None:
    """List jobs, the newest first."""
    with connected() as client:
        found = list(client.jobs.list(status=status))
    if json:
        print_json([as_json(job) for job in found])
        return
    rows = [
        [job.id, job.type, job.status, f"{job.progress:.0%}", f"{job.seconds:.1f}", moment(job.created_at), job.result]
        for job in found
    ]
    print_table(["job", "type", "status", "progress", "seconds", "created", "result"], rows)


@jobs.command("show")
def show_job(job_id: JobId) -> None:
    """Show a job as JSON."""
    with connected() as client:
        print_json(as_json(client.jobs.get(job_id)))


@jobs.command()
def log(job_id: JobId) -> None:
    """Show what a job has printed."""
    with connected() as client:
        for line in client.jobs.log(job_id):
            say(line.text)


@jobs.command()
def follow(job_id: JobId, json: Json = False) -> None:
    """Show what a job prints until it has ended. Fails if the job does."""
    with connected() as client:
        job = followed(client, job_id)
    print_message(job, lambda: say(job.result), as_json_document=json)


@jobs.command()
def cancel(job_id: JobId) -> None:
    """Cancel a job that has not ended; delete one that has."""
    with connected() as client:
        client.jobs.cancel(job_id)
    say(f"{job_id} canceled")


@artifacts.command("list")
def list_artifacts(json: Json = False) -> None:
    """List artifacts, the newest first."""
    with connected() as client:
        found = list(client.ml.list())
    if json:
        print_json([as_json(artifact) for artifact in found])
        return
    rows = [[a.id, str(a.level), a.parent_id.string_value, a.url, moment(a.created_at)] for a in found]
    print_table(["id", "level", "parent", "model", "created"], rows)


@artifacts.command("show")
def show_artifact(artifact_id: ArtifactId) -> None:
    """Show an artifact with its data as JSON."""
    with connected() as client:
        print_json(as_json(client.ml.get(artifact_id)))


@artifacts.command()
def tree(artifact_id: ArtifactId, json: Json = False) -> None:
    """Draw an artifact with those below it as a tree."""
    with connected() as client:
        root = client.ml.tree(artifact_id)

    def draw() -> None:
        say(_label(root))
        for line in _drawn(root, ""):
            say(line)

    print_message(root, draw, as_json_document=json)


@artifacts.command()
def rm(artifact_id: ArtifactId, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete an artifact; a trained model's version goes with it, for good."""
    confirmed(f"Delete the artifact {artifact_id} for good?", yes=yes)
    with connected() as client:
        client.ml.delete(artifact_id)
    say(f"{artifact_id} deleted")


def _drawn(node: "MlArtifactTree", before: str) -> Iterator[str]:
    for number, child in enumerate(node.children, 1):
        last = number == len(node.children)
        yield f"{before}{'└── ' if last else '├── '}{_label(child)}"
        yield from _drawn(child, before + ("    " if last else "│   "))


def _label(node: "MlArtifactTree") -> str:
    kind = node.url or ("prediction" if node.job_id else "note")
    return f"{node.id}  {kind}  {moment(node.created_at)}"
