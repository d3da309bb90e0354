"""Random values by a policy."""

import random
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from services.secrets.rotation.options import Options

_CLASSES = {
    "lower": "abcdefghijklmnopqrstuvwxyz",
    "upper": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "digits": "0123456789",
    # None of them means anything to a shell, in a URL's user part when encoded or in an .env file.
    "symbols": "-_.~+=,:@%^",
}
CharacterClass = Literal["lower", "upper", "digits", "symbols"]


class ValuePolicy(Options):
    """What a random value looks like. The shortest, 16 digits and letters, has 62¹⁶ ≈ 2⁹⁵ of its kind."""

    length: Annotated[int, Field(ge=16, le=1024)] = 32
    # Each of them occurs at least once.
    characters: Annotated[tuple[CharacterClass, ...], Field(min_length=2, max_length=4)] = ("lower", "upper", "digits")

    def value(self, randomness: random.Random) -> str:
        """A new one. `randomness` is the operating system's (`random.SystemRandom`), but for tests."""
        return _value([_CLASSES[name] for name in self.characters], self.length, randomness)


def _value(classes: Sequence[str], length: int, randomness: random.Random) -> str:
    # Drawn until every class occurs, so every value that may come is as likely as any other.
    alphabet = "".join(sorted(set("".join(classes))))
    while True:
        value = "".join(randomness.choice(alphabet) for _ in range(length))
        if all(set(value) & set(wanted) for wanted in classes):
            return value
