"""`strongroom configs`: what is trained, and how."""

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from strongroom.cli import completion
from strongroom.cli.session import (
    Json,
    as_json,
    confirmed,
    connected,
    misused,
    moment,
    print_json,
    print_message,
    print_table,
    say,
)

app = typer.Typer(help="Keep configs: what is trained, and how.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="A config's id.", autocompletion=completion.configs)]
File = Annotated[Path | None, typer.Option("--file", "-f", help="A JSON file with the data; - reads standard input.")]
Setting = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="Data, such as estimator=Ridge target=cases.")
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Models that are trained with it are called so.")],
    settings: Setting = None,
    file: File = None,
    config_id: Annotated[str, typer.Option("--id", help="A ULID; made up if not given.")] = "",
    json: Json = False,
) -> None:
    """Create a config. A VALUE that is JSON is read as such.

    Example: strongroom configs create disease estimator=Ridge 'parameters={"alpha": 0.5}' target=cases
    """
    data = _data(settings or [], file)
    with connected() as client:
        made = client.configs.create(name, data, config_id=config_id)
    print_message(made, lambda: say(made.id), as_json_document=json)


@app.command("list")
def list_configs(json: Json = False) -> None:
    """List configs."""
    with connected() as client:
        found = list(client.configs.list())
    if json:
        print_json([as_json(config) for config in found])
    else:
        print_table(["id", "name", "updated"], [[c.id, c.name, moment(c.updated_at)] for c in found])


@app.command()
def show(config_id: Id) -> None:
    """Show a config as JSON."""
    with connected() as client:
        print_json(as_json(client.configs.get(config_id)))


@app.command()
def update(config_id: Id, settings: Setting = None, file: File = None, name: str = "", json: Json = False) -> None:
    """Replace a config's data, and its name if one is given.

    Example: strongroom configs update 01J… estimator=Lasso --name disease-2
    """
    data = _data(settings or [], file)
    with connected() as client:
        changed = client.configs.update(config_id, name or client.configs.get(config_id).name, data)
    print_message(changed, lambda: say(f"{changed.id} changed"), as_json_document=json)


@app.command()
def rm(config_id: Id, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete a config; what was trained with it stays."""
    confirmed(f"Delete the config {config_id}?", yes=yes)
    with connected() as client:
        client.configs.delete(config_id)
    say(f"{config_id} deleted")


@app.command()
def schema(
    runner: Annotated[str, typer.Argument(metavar="[RUNNER]", help="The built-in one if not given.")] = "",
) -> None:
    """Show what a config's data may be, as a JSON schema."""
    with connected() as client:
        print_json(client.configs.schema(runner))


def _data(settings: list[str], file: Path | None) -> dict[str, Any]:
    if file is not None:
        if settings:
            misused("give the data either as KEY=VALUE or by --file")
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text()
            data = json_module.loads(text)
        except OSError as error:
            misused(f"{file} can't be read: {error.strerror}")
        except ValueError:
            misused(f"{file} is no JSON")
        if not isinstance(data, dict):
            misused(f"{file} is no JSON object")
        return data
    return dict(_setting(text) for text in settings)


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        misused(f"{text!r} is not KEY=VALUE")
    try:
        return key, json_module.loads(value)
    except ValueError:
        return key, value
