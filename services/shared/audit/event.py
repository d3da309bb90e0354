"""What the audit log says: events, and entries, which are events in their place in a chain. Pure: no clock, no IO."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter, le
from typing import Any, Literal

Outcome = Literal["allowed", "denied", "failed"]

# A method that was called, refused or not; other kinds have names of their own, such as `auth.invalid_key`.
CALL = "call"
# The first and the last entry of a chain.
OPENED, CLOSED = "audit.opened", "audit.closed"

ANONYMOUS = "anonymous"

# Characters kept of each text: callers choose some of them, and must not choose how large the log grows.
LENGTHS = {
    "kind": 64,
    "principal": 320,
    "principal_name": 255,
    "key_prefix": 16,
    "method": 256,
    "resource": 1024,
    "outcome": 16,
    "code": 32,
    "reason": 64,
    "request_id": 64,
    "address": 64,
}

# An event's texts, in the order of LENGTHS.
texts: Callable[["Event"], tuple[str, ...]] = attrgetter(*LENGTHS)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Event:
    """Who did what to what, and what came of it. Never holds a payload.

    `method` is `package.Service/Method`. `count` says how many alike the event stands for.
    """

    kind: str
    principal: str = ANONYMOUS
    principal_name: str = ""
    key_prefix: str = ""
    method: str = ""
    resource: str = ""
    outcome: Outcome = "allowed"
    code: str = ""
    reason: str = ""
    request_id: str = ""
    address: str = ""
    count: int = 1

    def bounded(self) -> "Event":
        """The event with its texts cut to LENGTHS, and a sign in place of what can't be printed.

        PostgreSQL keeps no NUL, and nobody shall paint another's terminal through the log.
        """
        own = texts(self)
        if all(map(le, map(len, own), LENGTHS.values())) and "".join(own).isprintable():
            return self  # as nearly every event: without a loop in Python
        odd = {name: text for name in LENGTHS if _is_odd(name, text := getattr(self, name))}
        bounded: dict[str, Any] = {name: _printable(text[: LENGTHS[name]]) for name, text in odd.items()}
        return replace(self, **bounded)


@dataclass(frozen=True, slots=True)
class Entry:
    """An event at its place: `time` in microseconds since 1970, `sequence` from 1, `hash` of 32 bytes."""

    id: str
    time: int
    event: Event
    chain: str
    sequence: int
    hash: bytes = b""


def microseconds(moment: datetime) -> int:
    """The moment as whole microseconds since 1970: what is hashed must come back from every database as it was."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(count: int) -> datetime:
    """Microseconds since 1970 as a moment in UTC."""
    return _EPOCH + count * _MICROSECOND


def _is_odd(name: str, text: str) -> bool:
    return len(text) > LENGTHS[name] or not text.isprintable()


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
