"""`strongroom managers`: create, list, show, delete, upload, save, load, verify, rotate-key, metrics."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli import completion
from strongroom.cli.session import (
    Json,
    as_json,
    complain,
    confirmed,
    connected,
    human_size,
    misused,
    print_json,
    print_message,
    print_table,
    say,
)

app = typer.Typer(help="Managers: each has keys and models of its own.", no_args_is_help=True)

Manager = Annotated[
    str, typer.Argument(metavar="MANAGER", help="The manager's id.", autocompletion=completion.managers)
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", autocompletion=completion.models)]
Where = Annotated[str, typer.Argument(metavar="PATH", help="Where the model is in the manager.")]
Code = Annotated[
    Path | None,
    typer.Option("--access-code-file", help="File with the access code: its first line. Never on the command line."),
]


@app.command()
def create(
    task_type: Annotated[str, typer.Argument(help="regression, classification, clustering or anomaly_detection.")],
    manager_id: Annotated[str, typer.Option("--id", help="Made up if not given.")] = "",
    model_path: Annotated[str, typer.Option(help="What stands in front of its paths.")] = "./models",
    encryption: Annotated[bool, typer.Option(help="Encrypt what is stored.")] = True,
    quantization: Annotated[bool, typer.Option(help="Store int8 copies as well.")] = False,
    primary_metric: Annotated[str, typer.Option(help="The metric by which models are compared.")] = "",
    scrypt: Annotated[bool, typer.Option(help="Keys from passwords by scrypt, else PBKDF2.")] = True,
    key_iterations: Annotated[int, typer.Option(help="Of PBKDF2.", min=100_000, max=5_000_000)] = 200_000,
    hash_algorithm: Annotated[str, typer.Option(help="Of PBKDF2: sha256, sha384 or sha512.")] = "sha512",
    json: Json = False,
) -> None:
    """Create a manager. Prints its id.

    Example: strongroom managers create regression --id fraud --primary-metric mse
    """
    with connected() as client:
        created = client.managers.create(
            task_type,
            manager_id=manager_id,
            model_path=model_path,
            enable_encryption=encryption,
            enable_quantization=quantization,
            primary_metric=primary_metric or None,
            use_scrypt=scrypt,
            key_iterations=key_iterations,
            hash_algorithm=hash_algorithm,
        )
        print_json(as_json(client.managers.get(created))) if json else say(created)


@app.command("list")
def list_managers(json: Json = False) -> None:
    """List managers by id."""
    with connected() as client:
        managers = list(client.managers.list())
    if json:
        print_json({"managers": [as_json(manager) for manager in managers], "next_page_token": ""})
    else:
        rows = [[m.manager_id, m.task_type, m.model_path, str(m.models_count), m.best_model] for m in managers]
        print_table(["manager", "task", "path", "models", "best model"], rows)


@app.command()
def show(manager: Manager, json: Json = False) -> None:
    """Show a manager and how it was configured."""
    with connected() as client:
        found = client.managers.get(manager)

    def for_people() -> None:
        derivation = "scrypt" if found.use_scrypt else f"PBKDF2, {found.hash_algorithm}, {found.key_iterations} times"
        rows = [
            ["id", found.manager_id],
            ["task", found.task_type],
            ["path", found.model_path],
            ["encrypted", _yes_or_no(found.enable_encryption)],
            ["keys from passwords", derivation],
            ["int8 copies", _yes_or_no(found.enable_quantization)],
            ["models", str(found.models_count)],
            ["compared by", found.primary_metric],
            ["best model", found.best_model],
        ]
        print_table(["", ""], rows)

    print_message(found, for_people, as_json_document=json)


@app.command()
def delete(
    manager: Manager,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    allow_in_use: Annotated[
        bool, typer.Option("--allow-in-use", help="Also if aliases name its versions, or some are in production.")
    ] = False,
) -> None:
    """Delete a manager with all of its models, and destroy their keys: for good."""
    confirmed(f"Delete the manager {manager} with everything in it for good?", yes=yes)
    with connected() as client:
        client.managers.delete(manager, allow_in_use=allow_in_use)
    say(f"deleted {manager}")


@app.command()
def upload(
    manager: Manager,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to upload.")],
    access_code_file: Code = None,
    json: Json = False,
) -> None:
    """Upload a file as a version of the model that it is named after."""
    code = _code(access_code_file)
    with connected() as client:
        try:
            uploaded = client.managers.upload(manager, file, access_code=code)
        except OSError as error:
            misused(f"{file}: {error.strerror}")
    print_message(uploaded, lambda: say(f"uploaded {uploaded.model_name}: {uploaded.filepath}"), as_json_document=json)


@app.command()
def save(
    manager: Manager,
    model: Model,
    path: Annotated[str, typer.Option(help="Where to; <model_path>/<model>.pkl if not given.")] = "",
    access_code_file: Code = None,
    compression_level: Annotated[int, typer.Option(min=0, max=9)] = 5,
    json: Json = False,
) -> None:
    """Save a model's newest version at a path."""
    code = _code(access_code_file)
    with connected() as client:
        saved = client.managers.save(
            manager, model, path or None, access_code=code, compression_level=compression_level
        )

    def for_people() -> None:
        say(f"saved {saved.model_name}: {saved.filepath}")
        if saved.HasField("quantized"):
            copy = saved.quantized
            sizes = f"{human_size(copy.size_bytes)} instead of {human_size(copy.original_size_bytes)}"
            say(f"int8 copy: {copy.filepath}, {sizes}, error {copy.relative_error:.2%}")

    print_message(saved, for_people, as_json_document=json)


@app.command()
def load(manager: Manager, path: Where, access_code_file: Code = None, json: Json = False) -> None:
    """Open the model at a path and say what it is."""
    code = _code(access_code_file)
    with connected() as client:
        loaded = client.managers.load(manager, path, access_code=code)
    best = ", the best one" if loaded.is_best_model else ""
    print_message(loaded, lambda: say(f"{path} is {loaded.model_name}{best}"), as_json_document=json)


@app.command()
def verify(manager: Manager, path: Where, json: Json = False) -> None:
    """Have the server check every stored byte of what is at a path."""
    with connected() as client:
        report = client.managers.verify(manager, path)

    def for_people() -> None:
        if report.is_valid:
            say(f"{path} is intact, {report.encryption_status}")
        else:
            complain(f"{path} is damaged", 1)

    print_message(report, for_people, as_json_document=json)
    if not report.is_valid:
        raise typer.Exit(1)


@app.command("rotate-key")
def rotate_key(
    manager: Manager,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Make the key of a password, read from standard input.")
    ] = False,
    json: Json = False,
) -> None:
    """Wrap the manager's keys under a new one. No weights move, everything stays readable."""
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    if password == "":
        misused("no password on standard input")
    with connected() as client:
        rotated = client.managers.rotate_key(manager, new_password=password)
    print_message(rotated, lambda: say(f"rotated the key of {manager}"), as_json_document=json)


@app.command()
def metrics(
    manager: Manager,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL[@VERSION]",
            help="A model; without a version its newest.",
            autocompletion=completion.versions_of_models,
        ),
    ],
    values: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="Metrics to set.")] = None,
    json: Json = False,
) -> None:
    """Show the metrics of a version, or set some.

    Example: strongroom managers metrics fraud scorer@v1 mse=0.12
    """
    name, _, version = model.partition("@")
    given = dict(map(_metric, values or []))
    with connected() as client:
        found = (
            client.managers.record_metrics(manager, name, given, version=version or "latest")
            if given
            else client.managers.metrics(manager, name, version or "latest")
        )
    if json:
        print_json({"metrics": found})
    else:
        print_table(["metric", "value"], [[metric, f"{value:g}"] for metric, value in sorted(found.items())])


def _metric(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        misused(f"{text!r} is no metric: write it like mse=0.12")


def _code(file: Path | None) -> str | None:
    """The access code in a file: its first line."""
    if file is None:
        return None
    try:
        code = file.read_text().partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError):
        misused(f"{file} cannot be read as a file with an access code")
    return code or misused(f"{file} holds no access code")


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
