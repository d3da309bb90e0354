"""Names of secrets as providers have room for them. Injective and reversible, so that no two secrets share a place."""

import re
from collections.abc import Mapping

from services.secrets.providers.provider import NameUnusable

_SEGMENT = "[A-Za-z0-9_-][A-Za-z0-9._-]*"
_BEGINNING = re.compile(f"({_SEGMENT}/)*({_SEGMENT})?")


def is_beginning(prefix: str) -> bool:
    """Whether a name may begin so. `team/../` may not: as part of a path it would lead out of its folder."""
    return _BEGINNING.fullmatch(prefix) is not None


class Spelling:
    """Characters that a provider does not take in names are spelt as an escape and one or two others.

    >>> Spelling("_", {"/": "_", ".": "d", "_": "u"}, limit=255).spell("prod/my_db")
    'prod__my_udb'
    """

    def __init__(self, escape: str, letters: Mapping[str, str], limit: int) -> None:
        self._table = str.maketrans({character: escape + letter for character, letter in letters.items()})
        self._characters = {letter: character for character, letter in letters.items()}
        self._escape = escape
        self._limit = limit

    def spell(self, name: str) -> str:
        """Raises NameUnusable if it gets too long."""
        spelt = name.translate(self._table)
        if len(spelt) > self._limit:
            raise NameUnusable(self._limit)
        return spelt

    def read(self, spelt: str) -> str | None:
        """The name; None if `spell` never wrote this."""
        pieces: list[str] = []
        rest = iter(spelt)
        for character in rest:
            if character == self._escape:
                first = next(rest, "")
                found = self._characters.get(first) or self._characters.get(first + next(rest, ""))
                if found is None:
                    return None
                character = found
            pieces.append(character)
        name = "".join(pieces)
        return name if name.translate(self._table) == spelt else None


class Below:
    """Names below a prefix: `prod/db` is `team/prod/db` there."""

    def __init__(self, prefix: str) -> None:
        self._folder = f"{prefix}/" if prefix else ""

    def full(self, name: str) -> str:
        return self._folder + name

    def own(self, full: str) -> str | None:
        """The name without the prefix; None if it is not below it."""
        return full.removeprefix(self._folder) if full.startswith(self._folder) else None
