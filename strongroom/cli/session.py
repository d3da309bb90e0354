"""What every command shares: who and where, how answers are printed, how failures end."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import urlsplit

import typer

from strongroom.cli import completion

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from strongroom.client import Client
    from strongroom.errors import StrongroomError
    from strongroom.profiles import Profile
    from strongroom.session import TokenStore

Json = Annotated[bool, typer.Option("--json", help="Print what REST would answer.")]
# Of a command that is no call of REST.
OwnJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Manager = Annotated[
    str,
    typer.Option("--manager", "-m", help="The manager that holds the model.", autocompletion=completion.managers),
]

# Seconds between two lines about a lost connection.
_QUIET = 2.0


@contextmanager
def connected(profile: "Profile | None" = None, session: "TokenStore | None" = None) -> Iterator["Client"]:
    """A client for the caller's profile, or this one. A failure inside ends the command with one line and status 1.

    Args:
        session: where a sign-in is kept.
    """
    from strongroom import allocator, profiles, retries

    allocator.tune()
    with failing_in_one_line() as failing:
        typed = profile is not None
        profile = profile or profiles.current()
        failing.url = profile.url
        failing.credential, failing.another = _told(profile, typed=typed)
        with waits_told(retries.log), client_of(profile, session) as client:
            yield client


def client_of(profile: "Profile", session: "TokenStore | None" = None) -> "Client":
    """A client for a profile: with its key, its token, or the session it keeps."""
    from strongroom.client import Client
    from strongroom.profiles import KeptSession

    if session is None and profile.session is not None:
        session = KeptSession(profile.url, profile.ca_file)
    direct = os.environ.get("STRONGROOM_DIRECT") != "off"
    return Client(
        profile.url,
        api_key=profile.api_key,
        token=profile.token,
        session=session,
        direct=direct,
        ca_file=profile.ca_file,
    )


@dataclass
class _Failing:
    """What is known of the place where a failure happens."""

    url: str = "Strongroom"
    # The key or token that is shown there, in words, and how to come by another.
    credential: str = ""
    another: str = ""


@contextmanager
def failing_in_one_line() -> Iterator[_Failing]:
    """A StrongroomError inside ends the command with one line and status 1."""
    from strongroom.errors import StrongroomError

    failing = _Failing()
    try:
        yield failing
    except StrongroomError as error:
        if os.environ.get("STRONGROOM_DEBUG"):
            raise
        fail(_advice(error, failing))


class _Waits(logging.Handler):
    """Says that a transfer waits for the server: one line for all of its files, and not line after line."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            complain(record.getMessage(), 0)


@contextmanager
def waits_told(log: logging.Logger) -> Iterator[None]:
    """Inside, one short line on standard error says so if a call or a transfer has to wait."""
    handler, level = _Waits(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


def _told(profile: "Profile", *, typed: bool) -> tuple[str, str]:
    """The key or token of a profile in words, never its text, and how to come by another; both empty if it has none."""
    from strongroom import profiles

    if not profile.api_key and not profile.token:
        return "", ""
    kind = "key" if profile.api_key else "token"
    if typed:
        return f"the {kind} that was given", ""
    for name in profiles.overriding():
        return f"the {kind} in {name}", f"Set another, or: unset {name}; strongroom login"
    return f"the {kind} of the profile", "Run: strongroom login"


def _advice(error: "StrongroomError", failing: _Failing) -> str:
    from strongroom.errors import PermissionDenied, Unauthenticated, Unavailable

    if isinstance(error, PermissionDenied) and error.reason != "TLS_REQUIRED":
        return f"not allowed: {error.message}"
    if isinstance(error, Unauthenticated) and error.reason == "CREDENTIAL_INVALID" and failing.credential:
        # To ask for a key would say nothing to somebody who has given one.
        why = f"it was revoked, has expired or is of another installation. {failing.another}"
        return f"{failing.credential} is not known at {failing.url}: {why}"
    if isinstance(error, Unauthenticated) and error.reason != "SIGN_IN_FAILED":
        return f"{error.message.rstrip('.')}. Set STRONGROOM_API_KEY or run: strongroom login"
    if isinstance(error, Unavailable) and not error.reason:
        return _unreachable(failing.url, error.message)
    if error.reason == "MODEL_NOT_FOUND":
        return f"{error.message} See: strongroom ls"
    return error.message


def _unreachable(url: str, said: str) -> str:
    """Why nothing comes back, as far as gRPC's words tell."""
    if "Connection refused" in said:
        way_out = "Start it: strongroom up" if is_here(url) else "Is Strongroom running there?"
        return f"Nothing answers at {url}. {way_out}"
    return f"{url} can't be reached. Is Strongroom running there? ({said})"


def is_here(url: str) -> bool:
    """Whether the address is one of this machine."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def fail(message: str, status: int = 1) -> NoReturn:
    """Ends the command with one line on standard error."""
    raise typer.Exit(complain(message, status))


def misused(message: str) -> NoReturn:
    """Ends the command as wrong usage."""
    fail(message, status=2)


def complain(message: str, status: int) -> int:
    """One line on standard error; the status."""
    typer.echo(f"strongroom: {visible(' '.join(message.split()))}", err=True)
    return status


def say(line: str) -> None:
    """One line on standard output, in which names that other people chose may stand."""
    typer.echo(visible(line))


def confirmed(question: str, *, yes: bool, otherwise: str = "nothing was deleted") -> None:
    """Asks before something is gone for good, where there is somebody to answer."""
    if not yes and sys.stdin.isatty() and not typer.confirm(question):
        fail(otherwise)


def visible(text: str) -> str:
    """The text without what would move a terminal's cursor or forge a line: names come from other people."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def as_json(message: "Message") -> dict[str, Any]:
    """The message as the gateway prints it: the proto's names, and fields that are not set with their defaults."""
    from google.protobuf import json_format

    shown: dict[str, Any] = _with_whole_numbers(
        json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    )
    return shown


def _with_whole_numbers(value: Any) -> Any:
    """Doubles that are whole as JSON writes them: 5, not 5.0. Beyond 2^53 they are no longer exact and stay as is."""
    if isinstance(value, dict):
        return {key: _with_whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value


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
            typer.echo("\t".join(map(visible, row)))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console = Console()
    # An id that the table cuts short is of no use: the terminal may wrap the line instead.
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    Console(width=max(console.width, needed)).print(table)


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def human_size(size: float) -> str:
    """`1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def moment(stamp: Any) -> str:
    """A timestamp for people, in local time; empty if it is not set."""
    return f"{stamp.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M}" if stamp.seconds else ""
