"""How the fields of a secret are given on the command line, and shown. Messages never repeat a value."""

import base64
import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from strongroom.cli import completion
from strongroom.cli.notation import seconds
from strongroom.cli.session import misused

# More than a secret can have, also as base64 in an object with much room between its fields.
MOST = 1 << 20

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*")

Name = Annotated[str, typer.Argument(help="Path of the secret, such as prod/db.", autocompletion=completion.secrets)]
Provider = Annotated[
    str, typer.Option("--provider", "-p", metavar="PROVIDER", help="Only there, and not in Strongroom itself.")
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="A label; it can be repeated.")
]
Expires = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="From then on it is not served: 30d, 12h, or a moment such as 2030-01-31."),
]
Fields = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FIELD=VALUE…",
        help="FIELD=- reads the value from standard input, FIELD=@FILE from a file, which may hold any bytes; "
        "'-' alone reads a JSON object from standard input.",
    ),
]


def given(fields: list[str], file: Path | None) -> dict[str, Any]:
    """The fields that a command line names. Ends the command if it is not so."""
    if fields == ["-"] and file is None:
        fields, file = [], Path("-")
    if bool(fields) == (file is not None):
        misused("give FIELD=VALUE pairs, or --file with a JSON object")
    if file is not None:
        return _encodable(json_object(file))
    # The arguments are not repeated in messages: they may be the values themselves.
    pairs = [field.partition("=") for field in fields]
    if not all(key and equals for key, equals, _ in pairs):
        misused("a field is written FIELD=VALUE")
    if len({key for key, _, _ in pairs}) < len(pairs):
        misused("a field is given twice")
    if sum(value == "-" for _, _, value in pairs) > 1:
        misused("only one value can come from standard input")
    return _encodable({key: _value(key, value) for key, _, value in pairs})


def labels_given(labels: Iterable[str] | None) -> dict[str, str]:
    """`KEY=VALUE` each. Ends the command if it is not so."""
    pairs = [label.partition("=") for label in labels or ()]
    for key, equals, _ in pairs:
        if not key or not equals:
            misused("a label is written KEY=VALUE")
    return {key: value for key, _, value in pairs}


def expiry(text: str | None) -> datetime | None:
    """A moment by its distance or its date; in local time where no zone is named. Ends the command if it is none."""
    if text is None:
        return None
    if not _DAY.fullmatch(text):
        return datetime.now(UTC) + timedelta(seconds=seconds("--expires", text))
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        misused(f"--expires {text!r} is no moment; one looks like 2030-01-31 or 2030-01-31T12:00")


def json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file, or in standard input for `-`. Ends the command if it is none."""
    try:
        data = json.loads(text_of(file, str(file)), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        misused(f"{file} is no JSON")
    if not isinstance(data, dict):
        misused(f"{file} is no JSON object")
    return data


def text_of(file: Path, what: str) -> str:
    """What the file holds; '-' is standard input. Ends the command if it is no text."""
    try:
        text = sys.stdin.read(MOST + 1) if str(file) == "-" else _bytes_of(file).decode()
    except OSError as error:
        misused(f"{what} can't be read: {error.strerror}")
    except UnicodeDecodeError:
        misused(f"{what} is no text")
    if len(text) > MOST:
        misused(f"{what} is larger than any secret")
    return text


def plain(value: Any) -> str:
    """A value for people: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(as_json(value), ensure_ascii=False)


def as_json(value: Any) -> Any:
    """A value as REST writes it: bytes as base64."""
    from strongroom.client.secrets import BINARY

    if isinstance(value, bytes):
        return {BINARY: base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value


def _value(key: str, value: str) -> str | bytes:
    if value == "-":
        return text_of(Path("-"), f"the value of {key}").removesuffix("\n")
    if not value.startswith("@"):
        return value
    try:
        content = _bytes_of(Path(value[1:]))
    except OSError as error:
        misused(f"the file with the value of {key} can't be read: {error.strerror}")
    try:
        return content.decode().removesuffix("\n")
    except UnicodeDecodeError:
        return content


def _encodable(data: dict[str, Any]) -> dict[str, Any]:
    """Raises UnicodeEncodeError for halves of surrogate pairs, which no message can have."""
    json.dumps(as_json(data), ensure_ascii=False).encode()
    return data


def _bytes_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MOST + 1)


def _no_constant(_name: str) -> NoReturn:
    raise ValueError
