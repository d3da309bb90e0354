"""`strongroom jobs`: what runs."""

from typing import Annotated

import typer

from strongroom.cli import completion
from strongroom.cli.session import (
    Json,
    as_json,
    connected,
    moment,
    print_json,
    print_message,
    print_table,
    say,
)
from strongroom.cli.train import followed

app = typer.Typer(help="See, follow and cancel jobs.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.", autocompletion=completion.jobs)]


@app.command("list")
def list_jobs(
    status: Annotated[
        str, typer.Option(help="Those in this state alone, such as running.", autocompletion=completion.states)
    ] = "",
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


@app.command("show")
def show_job(job_id: JobId) -> None:
    """Show a job as JSON."""
    with connected() as client:
        print_json(as_json(client.jobs.get(job_id)))


@app.command()
def log(job_id: JobId) -> None:
    """Show what a job has printed."""
    with connected() as client:
        for line in client.jobs.log(job_id):
            say(line.text)


@app.command()
def follow(job_id: JobId, json: Json = False) -> None:
    """Show what a job prints until it has ended. Fails if the job does."""
    with connected() as client:
        job = followed(client, job_id)
    print_message(job, lambda: say(job.result), as_json_document=json)


@app.command()
def cancel(job_id: JobId) -> None:
    """Cancel a job that has not ended; delete one that has."""
    with connected() as client:
        client.jobs.cancel(job_id)
    say(f"{job_id} canceled")
