"""Search by regular expression and text, in bounded time whatever the expression. Pure.

RE2 takes time in proportion to expression and text, and its memory is limited: what makes a backtracking
matcher think for hours is answered like any other (https://swtch.com/~rsc/regexp/regexp1.html). The worst found
still took 0.25 s for a text of 4096 characters, so there is a limit for the whole call as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import re2

from services.shared.errors import InvalidArgument

# Characters of a card or readme that are searched.
SEARCHED = 4096
# Rows that one call looks at, and reads at a time.
MOST_ROWS = 10_000
ROWS = 500

# Seconds after which a call looks at no more rows.
SECONDS = 1.0

# Bytes of a compiled expression.
_MOST_MEMORY = 1 << 20


class RegexInvalid(InvalidArgument):
    """No regular expression of RE2's, or one that would take too much memory."""

    reason = "REGEX_INVALID"


class TagInvalid(InvalidArgument):
    """No `name=value`."""

    reason = "TAG_INVALID"


class Budget:
    """What one call may take.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends = clock() + SECONDS
        self._rows = MOST_ROWS

    def spent(self) -> bool:
        """Counts a row; True if it was the last."""
        self._rows -= 1
        return self._rows <= 0 or self._clock() >= self._ends


@dataclass(frozen=True)
class TextFilter:
    """Whether one of several texts has what is looked for: what matches the expression, and what is queried."""

    _expression: Any
    _query: str

    @classmethod
    def of(cls, regex: str = "", query: str = "") -> "TextFilter":
        """Empty means everything. Raises RegexInvalid."""
        return cls(_compiled(regex) if regex else None, query.casefold())

    def finds(self, *texts: str) -> bool:
        if self._expression is not None and not any(self._expression.search(text) for text in texts):
            return False
        return not self._query or any(self._query in text.casefold() for text in texts)


def parse_tags(tags: list[str]) -> dict[str, str]:
    """Each `name=value`. Raises TagInvalid."""
    pairs = [tag.partition("=") for tag in tags]
    if not all(name and equals for name, equals, _ in pairs):
        raise TagInvalid("A tag to search for looks like name=value.")
    return {name: value for name, _, value in pairs}


def _compiled(regex: str) -> Any:
    options = re2.Options()
    options.max_mem = _MOST_MEMORY
    # To standard error, with the expression in it.
    options.log_errors = False
    try:
        return re2.compile(regex, options)
    except re2.error as error:
        said = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise RegexInvalid(f"This is no regular expression of RE2: {said[:200]}.") from None
