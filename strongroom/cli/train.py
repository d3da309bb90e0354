"""`train` and `predict`: data from CSV or JSON files, followed until the job has ended."""

import csv
import json as json_module
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.cli.session import Json, as_json, connected, fail, misused, print_json, print_message, say, visible

if TYPE_CHECKING:
    from strongroom.client import Client
    from strongroom.models.v1.jobs_pb2 import Job, WatchJobResponse

Data = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="CSV with a header, or JSON: columns and data; - is CSV from standard input."),
]
Follow = Annotated[bool, typer.Option("--follow", help="Wait for the end, and show what the job says.")]

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def train(
    data: Data,
    config: Annotated[str, typer.Option("--config", "-c", metavar="CONFIG", help="A config's id, or its name.")],
    follow: Follow = False,
    json: Json = False,
) -> None:
    """Train a model.

    Example: strongroom train data.csv --config disease --follow
    """
    columns, rows = read_table(data)
    with connected() as client:
        submitted = client.ml.train(_config_id(client, config), columns, rows)
        if not follow:
            print_message(
                submitted,
                lambda: say(f"{submitted.message}: job {submitted.job_id}, model {submitted.model_artifact_id}"),
                as_json_document=json,
            )
            return
        job = followed(client, submitted.job_id)
    print_message(job, lambda: say(f"{job.result}: model {job.artifact_id}"), as_json_document=json)


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The artifact of a trained model.")],
    data: Data,
    historic: Annotated[Path | None, typer.Option(metavar="FILE", help="What is known of the past.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A CSV file; standard output if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Predict with a trained model, and print the table with its column sample_0 as CSV.

    Example: strongroom predict 01J… future.csv -o predicted.csv
    """
    columns, rows = read_table(data)
    past = read_table(historic) if historic else None
    with connected() as client:
        submitted = client.ml.predict(model, columns, rows, historic=past)
        followed(client, submitted.job_id)
        artifact = client.ml.get(submitted.prediction_artifact_id)
        table = client.ml.predictions(submitted.prediction_artifact_id)
    if json:
        print_json(as_json(artifact))
        return
    try:
        target = output.open("w", newline="") if output else sys.stdout
        writer = csv.writer(target)
        writer.writerow(map(visible, table["columns"]))
        writer.writerows(table["data"])
        if output:
            target.close()
    except OSError as error:
        fail(f"{output} can't be written: {error.strerror}")


def followed(client: "Client", job_id: str) -> "Job":
    """The job once it is completed; what it says meanwhile goes to standard error. Ends the command if it failed."""
    *_, job = (_told(news) for news in client.jobs.watch(job_id))
    if job.status != "completed":
        fail(f"job {job_id} {job.status}: {job.result}")
    return job


def _told(news: "WatchJobResponse") -> "Job":
    for line in news.lines:
        typer.echo(visible(line.text), err=True)
    return news.job


def read_table(path: Path) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a file. Of CSV, what looks like a number is one, and an empty field is null."""
    try:
        if path.suffix == ".json":
            table = json_module.loads(path.read_text())
            return list(table["columns"]), [list(row) for row in table["data"]]
        if str(path) == "-":
            return _csv(sys.stdin)
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _csv(file)
    except OSError as error:
        misused(f"{path} can't be read: {error.strerror}")
    except (ValueError, KeyError, TypeError, csv.Error):
        misused(f"{path} holds no table: a CSV file with a header, or JSON with columns and data")


def _csv(file: Any) -> tuple[list[str], list[list[Any]]]:
    reader = csv.reader(file)
    columns = next(reader, [])
    return columns, [[_cell(text) for text in row] for row in reader if row]


def _cell(text: str) -> float | str | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _config_id(client: "Client", config: str) -> str:
    """A config by its id, or by a name that only one has."""
    if _ULID.fullmatch(config):
        return config
    named = [found.id for found in client.configs.list() if found.name == config]
    if not named:
        fail(f"there is no config '{config}'")
    if len(named) > 1:
        fail(f"{len(named)} configs are called '{config}': name an id")
    return named[0]
