"""`strongroom usage`: list, export."""

import os
import sys
import tempfile
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli.session import Json, as_json, connected, fail, human_size, print_json, print_table

app = typer.Typer(help="See who used how much. Without a command it lists.", invoke_without_command=True)

Principal = Annotated[str, typer.Option(help="One principal's alone, such as key:01J…; self is you.")]
FromDay = Annotated[str, typer.Option("--from", metavar="DAY", help="First day, UTC; 30 days ago if not given.")]
ToDay = Annotated[str, typer.Option("--to", metavar="DAY", help="Last day, included; today if not given.")]


class Format(StrEnum):
    """What an export is written in."""

    csv = "csv"
    json = "json"


@app.callback()
def usage(
    context: typer.Context,
    principal: Principal = "",
    from_day: FromDay = "",
    to_day: ToDay = "",
    json: Json = False,
) -> None:
    """See who used how much: your own use, and with usage.read everybody's.

    Example: strongroom usage --principal self --from 2026-11-01
    """
    if context.invoked_subcommand is None:
        list_usage(principal, from_day, to_day, json=json)


@app.command("list")
def list_usage(principal: Principal = "", from_day: FromDay = "", to_day: ToDay = "", json: Json = False) -> None:
    """List use by principal, day and class, the latest day first."""
    with connected() as client:
        lines = list(client.usage.list(principal=principal, from_day=from_day, to_day=to_day))
    if json:
        print_json({"usage": [as_json(line) for line in lines], "next_page_token": ""})
        return
    rows = [
        [
            line.day,
            line.name or line.principal,
            line.usage_class,
            f"{line.requests:.0f}",
            f"{line.errors:.0f}",
            human_size(line.bytes_received),
            human_size(line.bytes_sent),
            f"{line.job_seconds:.0f}",
            f"{line.cost_estimate:.2f}",
        ]
        for line in lines
    ]
    print_table(["day", "who", "class", "requests", "failed", "received", "sent", "job seconds", "cost"], rows)


@app.command()
def export(
    format: Annotated[Format, typer.Option("--format", "-f", help="What it is written in.")] = Format.csv,  # noqa: A002 - the option's name
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; standard output if not given.")] = None,
    principal: Principal = "",
    from_day: FromDay = "",
    to_day: ToDay = "",
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Write the ledger as CSV or JSON.

    Example: strongroom usage export --format csv --from 2026-11-01 -o november.csv
    """
    with connected() as client:
        pieces = client.usage.export(
            "json" if json else format.value, principal=principal, from_day=from_day, to_day=to_day
        )
        if output is None:
            for piece in pieces:
                sys.stdout.write(piece.decode())
        else:
            _write(output, pieces)


def _write(target: Path, pieces: Iterable[bytes]) -> None:
    """The file appears once it is complete."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                for piece in pieces:
                    file.write(piece)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        fail(f"{target} can't be written: {error.strerror}")
