"""`strongroom secrets rotate` and `strongroom secrets rotation`: secrets that get a new value by themselves."""

import json as jsonlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.cli import completion
from strongroom.cli.session import (
    Json,
    as_json,
    connected,
    fail,
    misused,
    moment,
    print_json,
    print_message,
    print_table,
    say,
)

if TYPE_CHECKING:
    from strongroom.secrets.v1 import rotations_pb2 as pb

app = typer.Typer(help="Say how secrets rotate, and see what becomes of it.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Path of the secret, such as prod/db.", autocompletion=completion.secrets)]


def rotate(
    name: Name,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for the schedule.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
    json: Json = False,
) -> None:
    """Give a secret its new value, as `secrets rotation set` says how. A schedule is kept unless --now is given.

    Example: strongroom secrets rotate prod/db --now
    """
    with connected() as client:
        if not now and (scheduled := client.secret_rotation.get(name)).schedule:
            due = scheduled.next_run_at.ToDatetime(UTC)
            if scheduled.state == "idle" and due > datetime.now(UTC):
                fail(f"{name} rotates at {_next(scheduled)}; --now does not wait for that")
        rotation = client.secret_rotation.rotate(name)
        rotation = client.secret_rotation.finished(rotation) if wait else rotation
    print_message(rotation, lambda: say(_outcome(rotation, waited=wait)), as_json_document=json)
    if wait and (rotation.state != "idle" or rotation.last.state != "done"):
        fail(rotation.last.error or rotation.error or f"the rotation of {name} goes on")


@app.command("set")
def set_rotation(
    name: Name,
    rotator: Annotated[
        str, typer.Option("--rotator", "-r", help="random, postgresql, strongroom-key, aws-access-key, webhook, …")
    ],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="For the rotator; VALUE is text or JSON, no secret."),
    ] = None,
    schedule: Annotated[
        str, typer.Option("--schedule", help="Five fields as in cron: '0 3 * * SUN'. Without: when asked for.")
    ] = "",
    time_zone: Annotated[str, typer.Option("--time-zone", help="Such as Europe/Vienna; UTC if not given.")] = "",
    grace: Annotated[
        int | None,
        typer.Option("--grace", help="Seconds the value before works on; a day if not given.", min=0),
    ] = None,
    json: Json = False,
) -> None:
    """Make a secret rotate, or change how.

    Example: strongroom secrets rotation set prod/db -r random --schedule "0 3 * * SUN"
    """
    options = _options(option or [])
    with connected() as client:
        rotation = client.secret_rotation.set(
            name, rotator, options, schedule=schedule, time_zone=time_zone, grace_seconds=grace
        )
    print_message(rotation, lambda: say(_planned(rotation)), as_json_document=json)


@app.command()
def show(name: Name, json: Json = False) -> None:
    """Show how a secret rotates, what goes on, and what became of earlier rotations."""
    with connected() as client:
        rotation = client.secret_rotation.get(name)
        runs = client.secret_rotation.history(name)
    if json:
        print_json(as_json(rotation) | {"runs": [as_json(run) for run in runs]})
        return
    say(_planned(rotation))
    say(f"state: {rotation.state}" + (f"; {rotation.error}" if rotation.error else ""))
    rows = [
        [moment(run.started_at), run.state, run.trigger, f"{run.from_version} to {run.to_version or '-'}", run.error]
        for run in runs
    ]
    print_table(["started", "state", "trigger", "version", "error"], rows)


@app.command("list")
def list_rotations(json: Json = False) -> None:
    """List how secrets rotate."""
    with connected() as client:
        rotations = list(client.secret_rotation.list())
    if json:
        print_json({"rotations": [as_json(rotation) for rotation in rotations], "next_page_token": ""})
        return
    rows = [
        [r.name, r.rotator, r.state, moment(r.last_success_at), moment(r.next_run_at), r.error or r.last.error]
        for r in rotations
    ]
    print_table(["name", "rotator", "state", "last", "next", "error"], rows)


@app.command()
def rm(
    name: Name,
    abandon: Annotated[bool, typer.Option("--abandon", help="Also in the middle of a rotation.")] = False,
    json: Json = False,
) -> None:
    """Let a secret stay as it is from now on."""
    with connected() as client:
        client.secret_rotation.remove(name, abandon=abandon)
    if json:
        print_json({"name": name})
    else:
        say(f"{name} does not rotate any more")


def _options(given: list[str]) -> dict[str, Any]:
    # Neither is repeated in messages: somebody will write a password here.
    pairs = [option.partition("=") for option in given]
    if not all(name and equals for name, equals, _ in pairs):
        misused("an option is written NAME=VALUE")
    if len({name for name, _, _ in pairs}) < len(pairs):
        misused("an option is given twice")
    return {name: _value(value) for name, _, value in pairs}


def _value(text: str) -> Any:
    """`["a", "b"]`, `5432` and `true` as JSON has them; anything else is text."""
    try:
        return jsonlib.loads(text)
    except ValueError:
        return text


def _planned(rotation: "pb.SecretRotation") -> str:
    when = f"next at {_next(rotation)}" if rotation.schedule else "when it is asked for"
    return f"{rotation.name} rotates by {rotation.rotator}, {when}"


def _next(rotation: "pb.SecretRotation") -> str:
    """When it rotates next, by the clock that its schedule is written for."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    due = rotation.next_run_at.ToDatetime(UTC)
    try:
        return f"{due.astimezone(ZoneInfo(rotation.time_zone or 'UTC')):%Y-%m-%d %H:%M} {rotation.time_zone or 'UTC'}"
    except (ZoneInfoNotFoundError, ValueError):  # this machine does not know all zones
        return f"{due:%Y-%m-%d %H:%M} UTC"


def _outcome(rotation: "pb.SecretRotation", *, waited: bool) -> str:
    last = rotation.last
    if waited and rotation.state == "idle" and last.state == "done":
        return f"rotated {rotation.name}, version {last.from_version} to {last.to_version}"
    return f"{rotation.name}: {rotation.state}"
