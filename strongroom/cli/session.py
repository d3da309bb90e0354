"""What every command shares: who and where, how answers are printed, how failures end."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from strongroom.client import Client

Json = Annotated[bool, typer.Option("--json", help="Print what REST would answer.")]
Manager = Annotated[str, typer.Option("--manager", "-m", help="The manager that holds the model.")]


@contextmanager
def connected() -> Iterator["Client"]:
    """A client for the caller's profile. A failure inside ends the command with one line and status 1."""
    from strongroom import allocator, profiles
    from strongroom.client import Client
    from strongroom.errors import StrongroomError

    allocator.tune()
    try:
        profile = profiles.current()
        with Client(profile.url, api_key=profile.api_key) as client:
            yield client
    except StrongroomError as error:
        if os.environ.get("STRONGROOM_DEBUG"):
            raise
        fail(_advice(error))


def _advice(error: Any) -> str:
    from strongroom.errors import Unauthenticated, Unavailable
    from strongroom.profiles import current

    message = " ".join(str(error.message).split())
    profile = current()
    if isinstance(error, Unauthenticated):
        what = "Set STRONGROOM_API_KEY or run: strongroom login"
        return f"{message}. {what}" if not message.endswith(".") else f"{message} {what}"
    if isinstance(error, Unavailable) and not error.reason:
        return f"{profile.url} can't be reached. Is Strongroom running there? ({message})"
    return message


def fail(message: str, status: int = 1) -> NoReturn:
    """Ends the command with one line on standard error."""
    typer.echo(f"strongroom: {message}", err=True)
    raise typer.Exit(status)


def misused(message: str) -> NoReturn:
    """Ends the command as wrong usage."""
    fail(message, status=2)


def as_json(message: "Message") -> dict[str, Any]:
    """The message as the gateway prints it: the proto's names, and fields that are not set with their defaults."""
    from google.protobuf import json_format

    shown: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return shown


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_message(message: "Message", show: Callable[[], None], *, as_json_document: bool) -> None:
    """The answer: as JSON, or as `show` prints it for people."""
    if as_json_document:
        print_json(as_json(message))
    else:
        show()


def print_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Aligned columns; where standard output is no terminal, columns divided by tabs, without a header."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def human_size(size: float) -> str:
    """`1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def moment(stamp: Any) -> str:
    """A timestamp for people, in local time; empty if it is not set."""
    return f"{stamp.ToDatetime().astimezone():%Y-%m-%d %H:%M}" if stamp.seconds else ""


def interrupted() -> NoReturn:
    """Ctrl-C: one line, and the status that shells know."""
    typer.echo("strongroom: interrupted; run the same command again to go on where it was", err=True)
    sys.exit(128 + signal.SIGINT)
