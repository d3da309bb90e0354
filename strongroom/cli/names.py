"""How models, versions and aliases are named on the command line: `NAME`, `NAME@VERSION`, `NAME:ALIAS`."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.cli.session import misused

if TYPE_CHECKING:
    from strongroom.client import Client

LATEST = "latest"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_RULE = "use 1 to 128 letters, digits, '.', '_' and '-'"


@dataclass(frozen=True)
class Reference:
    """A model, and a version of it by name or by alias; `version` is `latest` if neither was named."""

    name: str
    version: str = LATEST
    alias: str = ""
    # Whether a version or an alias was named.
    named: bool = False

    def resolved(self, client: "Client", manager: str) -> str:
        """The version; of an alias the one that it names now."""
        return client.aliases.get(self.name, self.alias, manager=manager).version if self.alias else self.version


def split(text: str) -> Reference:
    """Ends the command if it is not so."""
    name, mark, rest = re.match(r"([^@:]*)([@:]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    check_name(name)
    what = "an alias" if mark == ":" else "a version"
    if mark and not _NAME.fullmatch(rest):
        misused(f"{rest!r} is no name of {what}: {_RULE}")
    if mark == ":":
        return Reference(name, alias=rest, named=True)
    return Reference(name, rest or LATEST, named=bool(mark))


def check_name(name: str) -> None:
    """Ends the command if no model can be called so."""
    if not _NAME.fullmatch(name):
        misused(f"{name!r} is no name of a model: {_RULE}")
