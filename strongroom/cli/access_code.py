"""Codes and passwords, read from files: what stands in a command line, others on the machine can read."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli.session import misused

# More than any code has.
_MOST = 8192

AccessCodeFile = Annotated[
    str | None,
    typer.Option("--access-code-file", metavar="FILE", help="The version's access code is in this file ('-': stdin)."),
]


def from_file(file: str | None, what: str = "access code") -> str | None:
    """The first line of a file, or of standard input for `-`; None without a file. Ends the command if it is empty."""
    if file is None:
        return None
    try:
        data = sys.stdin.buffer.read(_MOST) if file == "-" else _read(Path(file))
        text = data.decode().partition("\n")[0].rstrip("\r")
    except OSError as error:
        misused(f"the file of the {what} can't be read: {error.strerror}")
    except UnicodeDecodeError:
        misused(f"the file of the {what} is no text")
    if not text:
        misused(f"the file of the {what} is empty")
    return text


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_MOST)
