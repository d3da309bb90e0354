"""`strongroom secrets`: put, get, list, history, rm."""

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from strongroom.cli.session import (
    Json,
    as_json,
    confirmed,
    connected,
    counted,
    fail,
    misused,
    moment,
    print_json,
    print_message,
    print_table,
)

app = typer.Typer(help="Keep and read secrets.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Path of the secret, such as prod/db.")]


@app.command()
def put(
    name: Name,
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIELD=VALUE…",
            help="FIELD=- reads the value from standard input, FIELD=@FILE from a file; "
            "'-' alone reads a JSON object from standard input.",
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A JSON object; '-' is standard input.")] = None,
    expected_version: Annotated[
        int | None, typer.Option(help="Write only over this version; 0: only if there is none.", min=0)
    ] = None,
    json: Json = False,
) -> None:
    """Write a new version of a secret.

    What stands on a command line can be seen by others on the machine: prefer '-' or --file for what matters.

    Example: strongroom secrets put prod/db user=scorer password=-
    """
    data = _data(fields or [], file)
    with connected() as client:
        written = client.secrets.put(name, data, expected_version=expected_version)
    line = f"wrote {name}, version {written.version}"
    print_message(written, lambda: typer.echo(line), as_json_document=json)


@app.command()
def get(
    name: Name,
    version: Annotated[int, typer.Option("--version", "-v", help="A version; the current one if not given.")] = 0,
    field: Annotated[str | None, typer.Option("--field", "-k", help="Print the bare value of this field.")] = None,
    json: Json = False,
) -> None:
    """Read a secret."""
    if version < 0:
        misused("versions count from 1")
    with connected() as client:
        secret = client.secrets.get(name, version)
    data = as_json(secret)["data"]
    if json:
        print_json(as_json(secret))
    elif field is None:
        for key, value in sorted(data.items()):
            typer.echo(f"{key}={_plain(value)}")
    elif field in data:
        typer.echo(_plain(data[field]))
    else:
        fail(f"secret {name} has no field {field}; it has: {', '.join(sorted(data)) or 'none'}")


@app.command("list")
def list_secrets(
    prefix: Annotated[str, typer.Argument(help="Only names that begin with this.")] = "", json: Json = False
) -> None:
    """List secrets by name, without values."""
    with connected() as client:
        secrets = list(client.secrets.list(prefix))
    if json:
        print_json({"secrets": [as_json(secret) for secret in secrets], "next_page_token": ""})
    else:
        rows = [[secret.name, str(secret.current_version), moment(secret.updated_at)] for secret in secrets]
        print_table(["name", "version", "updated"], rows)


@app.command()
def history(name: Name, json: Json = False) -> None:
    """List the versions of a secret, without values."""
    with connected() as client:
        versions = client.secrets.history(name)
    if json:
        print_json({"versions": [as_json(version) for version in versions]})
    else:
        rows = [[str(version.version), moment(version.created_at), version.created_by] for version in versions]
        print_table(["version", "created", "by"], rows)


@app.command()
def rm(
    name: Name, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False, json: Json = False
) -> None:
    """Delete a secret with all versions and destroy its key: for good."""
    confirmed(f"Delete {name} with all of its versions for good?", yes=yes)
    with connected() as client:
        gone = client.secrets.delete(name)
    line = f"deleted {name}: {counted(gone.destroyed_versions, 'version')}"
    print_message(gone, lambda: typer.echo(line), as_json_document=json)


def _data(fields: list[str], file: Path | None) -> dict[str, Any]:
    if fields == ["-"] and file is None:
        fields, file = [], Path("-")
    if bool(fields) == (file is not None):
        misused("give FIELD=VALUE pairs, or --file with a JSON object")
    if file is not None:
        return _object(file)
    # The arguments are not repeated in messages: they may be the values themselves.
    pairs = [field.partition("=") for field in fields]
    if not all(key and equals for key, equals, _ in pairs):
        misused("a field is written FIELD=VALUE")
    if len({key for key, _, _ in pairs}) < len(pairs):
        misused("a field is given twice")
    if sum(value == "-" for _, _, value in pairs) > 1:
        misused("only one value can come from standard input")
    return {key: _value(key, value) for key, _, value in pairs}


def _value(key: str, value: str) -> str:
    if value == "-":
        return _text(Path("-"), f"the value of {key}").removesuffix("\n")
    if value.startswith("@"):
        return _text(Path(value[1:]), f"the file with the value of {key}").removesuffix("\n")
    return value


def _object(file: Path) -> dict[str, Any]:
    try:
        data = jsonlib.loads(_text(file, str(file)))
    except ValueError:
        misused(f"{file} is no JSON")
    if not isinstance(data, dict):
        misused(f"{file} is no JSON object")
    return data


def _text(file: Path, what: str) -> str:
    """What the file holds; '-' is standard input."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text()
    except OSError as error:
        misused(f"{what} can't be read: {error.strerror}")
    except UnicodeDecodeError:
        misused(f"{what} is no text")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False)
