"""How often something may happen.

>>> parse("100/minute")
Rate(requests=100, seconds=60)
>>> parse("off") is None
True
"""

import re
from dataclasses import dataclass

_SECONDS = {"second": 1, "minute": 60, "hour": 3600}
_RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour)")

# What a client may do that sets no rate of its own: the registry's documents ask clients to keep to it.
DEFAULT = "100/minute"
OFF = "off"


@dataclass(frozen=True)
class Rate:
    """So many requests in so many seconds: a bucket of `requests` tokens that fills evenly in `seconds`."""

    requests: int
    seconds: int


def parse(text: str) -> Rate | None:
    """`N/second`, `N/minute`, `N/hour`, or `off`: None. Raises ValueError."""
    if text == OFF:
        return None
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"A rate is N/second, N/minute, N/hour or {OFF}, for example {DEFAULT}.")
    return Rate(int(match[1]), _SECONDS[match[2]])
