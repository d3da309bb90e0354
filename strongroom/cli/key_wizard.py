"""Creating a key by being asked: `strongroom keys create` on a terminal, and examples/create_api_key.py.

Questions go to standard error, so that `KEY=$(strongroom keys create)` catches the key alone.
"""

import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from strongroom.cli.session import fail, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.auth.v1.api_keys_pb2 import PermissionSet
    from strongroom.client import Client
    from strongroom.client.keys import NewKey

_DAYS = 90


@dataclass(frozen=True)
class _Wanted:
    """The answers."""

    name: str
    description: str
    permission_set: str
    permissions: list[str]
    scopes: list[str]
    expires_in_days: int | None


def create(client: "Client") -> "NewKey":
    """Asks for name, purpose, permissions, scopes and expiry, shows them, and creates the key."""
    # Not by `err=True`: the prompt's last character would still go to standard output.
    with redirect_stdout(sys.stderr):
        wanted = _ask(client.keys.sets())
        _summarize(wanted)
        if not typer.confirm("Create it?", default=True):
            fail("nothing was created")
    return client.keys.create(
        wanted.name,
        description=wanted.description,
        permission_set=wanted.permission_set,
        permissions=wanted.permissions,
        scopes=wanted.scopes,
        expires_in_days=wanted.expires_in_days,
    )


def _ask(sets: "Sequence[PermissionSet]") -> _Wanted:
    name = typer.prompt("Name").strip()
    description = typer.prompt("What is it for", default="", show_default=False).strip()
    permission_set, permissions = _ask_permissions(sets)
    scopes = _words(
        typer.prompt(
            "Limit it to resources such as managers/fraud/** (empty: everywhere)",
            default="",
            show_default=False,
        )
    )
    days = typer.prompt("Days until it expires (0: never)", default=str(_DAYS), value_proc=_number(0, 3650))
    return _Wanted(name, description, permission_set, permissions, scopes, days or None)


def _ask_permissions(sets: "Sequence[PermissionSet]") -> tuple[str, list[str]]:
    """A set's name, or permissions."""
    typer.echo("What may it do?")
    for number, item in enumerate(sets, 1):
        typer.echo(f"  {number}  {item.name:<18} {visible(item.description)}")
    typer.echo(f"  {len(sets) + 1}  {'custom':<18} Permissions of your own choice.")
    chosen = typer.prompt("Number", default="1", value_proc=_number(1, len(sets) + 1))
    if chosen <= len(sets):
        return sets[chosen - 1].name, []
    known = sorted({permission for item in sets for permission in item.permissions if "*" not in permission})
    typer.echo(f"Among the permissions are: {', '.join(known)}")
    permissions: list[str] = []
    while not permissions:
        permissions = _words(typer.prompt("Permissions"))
    return "", permissions


def _summarize(wanted: _Wanted) -> None:
    may = wanted.permission_set or ", ".join(wanted.permissions)
    expires = f"in {wanted.expires_in_days} days" if wanted.expires_in_days else "never"
    for title, text in (
        ("name", wanted.name),
        ("for", wanted.description or "–"),
        ("may", f"{may} on {', '.join(wanted.scopes) or 'everything'}"),
        ("expires", expires),
    ):
        typer.echo(f"  {title:<8} {visible(text)}")


def _number(least: int, most: int) -> Callable[[str], int]:
    """Asks again until it is a number between these."""

    def parse(text: str) -> int:
        if text.strip().isdecimal() and least <= int(text) <= most:
            return int(text)
        raise typer.BadParameter(f"A number from {least} to {most}.")

    return parse


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", text.strip()) if word]
