"""`train` and `predict`: data from CSV, JSON or Parquet files, followed until the job has ended.

Rows of CSV and JSON go with the request. A Parquet file is pushed as a version's, and the request names it.
"""

import csv
import json as json_module
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from strongroom.cli import completion
from strongroom.cli.session import Json, as_json, connected, fail, misused, print_json, print_message, say, visible

if TYPE_CHECKING:
    from strongroom.client import Client
    from strongroom.models.v1.jobs_pb2 import Job, WatchJobResponse

Data = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="CSV with a header, JSON with columns and data, or Parquet; - is CSV from standard input."
    ),
]
Follow = Annotated[bool, typer.Option("--follow", help="Wait for the end, and show what the job says.")]

# Of which models Parquet files are versions, sent and made.
_SENT, _MADE = "datasets", "predictions"
_PARQUET = ".parquet"
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def train(
    data: Data,
    config: Annotated[
        str,
        typer.Option(
            "--config",
            "-c",
            metavar="CONFIG",
            help="A config's id, or its name.",
            autocompletion=completion.named_configs,
        ),
    ],
    follow: Follow = False,
    json: Json = False,
) -> None:
    """Train a model. A Parquet file is pushed first, as a version of "datasets" beside the model.

    Example: strongroom train data.csv --config disease --follow
    """
    with connected() as client:
        config_id = _config_id(client, config)
        if data.suffix == _PARQUET:
            manager = as_json(client.configs.get(config_id))["data"].get("manager_id", "default")
            submitted = client.ml.train(config_id, url=_pushed(client, data, manager))
        else:
            submitted = client.ml.train(config_id, *read_table(data))
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
        Path | None,
        typer.Option("--output", "--out", "-o", help="A CSV or Parquet file; CSV on standard output if not given."),
    ] = None,
    json: Json = False,
) -> None:
    """Predict with a trained model: the table with its column sample_0. Parquet files are pushed and pulled as versions
    of "datasets" and "predictions" beside the model.

    Example: strongroom predict 01J… future.csv -o predicted.csv
    """
    to_file = output is not None and output.suffix == _PARQUET
    with connected() as client:
        manager = urlsplit(client.ml.get(model).url).netloc
        columns, rows, url = _given(client, data, manager)
        past = _given(client, historic, manager) if historic else None
        submitted = client.ml.predict(
            *(model, columns, rows),
            url=url,
            historic=past and (past[2] or past[:2]),
            output=f"strongroom://{manager}/{_MADE}" if to_file else "",
        )
        followed(client, submitted.job_id)
        artifact = client.ml.get(submitted.prediction_artifact_id)
        if to_file and output is not None:
            client.models.pull(_MADE, output, version=artifact.id, manager=manager)
        table = client.ml.predictions(submitted.prediction_artifact_id)
    if json:
        print_json(as_json(artifact))
    elif not to_file:
        _print(table, output)


def _print(table: Mapping[str, Any], output: Path | None) -> None:
    """As CSV."""
    try:
        target = output.open("w", newline="") if output else sys.stdout
        writer = csv.writer(target)
        writer.writerow(map(visible, table["columns"]))
        writer.writerows(table["data"])
        if output:
            target.close()
    except OSError as error:
        fail(f"{output} can't be written: {error.strerror}")


def _given(client: "Client", data: Path, manager: str) -> tuple[list[str], list[list[Any]], str]:
    """Columns and rows that go with a request, or the address of a Parquet file once it is pushed."""
    if data.suffix == _PARQUET:
        return [], [], _pushed(client, data, manager)
    return *read_table(data), ""


def _pushed(client: "Client", data: Path, manager: str) -> str:
    """Pushes a file, of which only what is new is sent; where it is then."""
    if not data.is_file():
        misused(f"{data} can't be read: there is no such file")
    version = client.models.push(_SENT, data, manager=manager).version.version
    return f"strongroom://{manager}/{_SENT}/{version}"


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
