"""Chains of hashes: whoever changes one event must change all that follow it. Pure: no clock, no IO.

The hash of an entry is SHA-256 of the previous entry's hash, of 32 zero bytes for the first, followed by the entry in
one canonical form: a JSON array (RFC 8259) in ASCII without spaces of a version tag, the service's name and the
entry's columns in the order of COLUMNS. Anybody can recompute it with a dozen lines in any language.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.shared.audit.event import CLOSED, LENGTHS, OPENED, Entry, texts

GENESIS = bytes(32)
# What is hashed, in this order.
COLUMNS = ("id", "time", *LENGTHS, "count", "chain", "sequence")

_FORMAT = "strongroom-audit-1"
_MAX_PROBLEMS = 100
_KIND, _RESOURCE = COLUMNS.index("kind"), COLUMNS.index("resource")
_SEQUENCE = COLUMNS.index("sequence")

_encoder = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))

# Whether a signature, in base64, by the service's key is one of this statement.
IsSigned = Callable[[bytes, str], bool]


def values(entry: Entry) -> tuple[Any, ...]:
    """The entry's columns in the order of COLUMNS."""
    event = entry.event
    return (entry.id, entry.time, *texts(event), event.count, entry.chain, entry.sequence)


def digest(service: str, previous: bytes, columns: Sequence[Any]) -> bytes:
    """The hash of an entry, given as its columns, behind the entry with the hash `previous`."""
    return hashlib.sha256(previous + _encoder.encode([_FORMAT, service, *columns]).encode()).digest()


def mark(service: str, kind: str, chain: str, sequence: int, previous: bytes) -> bytes:
    """What a process signs in the first and the last entry of its chain, so that nobody else begins or ends one."""
    return f"{_FORMAT} {kind}\n{service}\n{chain}\n{sequence}\n{previous.hex()}".encode()


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain was at some moment: the sequence and hash of its last entry; `time` in microseconds since 1970.

    A final head says that no entry comes after.
    """

    service: str
    chain: str
    sequence: int
    hash: bytes
    time: int
    is_final: bool = False

    def statement(self) -> bytes:
        """What is signed."""
        kind = "final head" if self.is_final else "head"
        lines = f"{_FORMAT} {kind}", self.service, self.chain, self.sequence, self.hash.hex(), self.time
        return "\n".join(map(str, lines)).encode()


@dataclass
class Report:
    """What the verification of a chain found; without problems it is valid. `began_at` in microseconds."""

    chain: str
    events: int = 0
    began_at: int | None = None
    is_closed: bool = False
    heads: int = 0
    problems: list[str] = field(default_factory=list)

    def complain(self, problem: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(problem)


def verify(
    service: str,
    chain: str,
    rows: Iterator[tuple[tuple[Any, ...], Any]],
    heads: Sequence[Head],
    is_signed: IsSigned,
    unsigned_since: int,
) -> Report:
    """Recomputes a chain.

    Args:
        service: whose chain it is.
        chain: its id.
        rows: all that claims to be of this chain: columns as in COLUMNS, and the hash. Ordered by sequence.
        heads: signed heads of it whose signatures are good; none if they are kept elsewhere.
        is_signed: judges the marks in the first and last entry.
        unsigned_since: events older than this moment, in microseconds, must be covered by a head if there are any.
    """
    walk = _Walk(service, Report(chain, heads=len(heads)), heads, is_signed)
    for columns, stored in rows:
        walk.step(columns, stored)
    walk.end(unsigned_since)
    return walk.report


class _Walk:
    """Goes along a chain, entry by entry, and forgets what it has seen."""

    def __init__(self, service: str, report: Report, heads: Sequence[Head], is_signed: IsSigned) -> None:
        self.report = report
        self._service = service
        self._heads = {head.sequence: head for head in heads}
        self._last_head = max(self._heads, default=0)
        self._end = min((head.sequence for head in heads if head.is_final), default=None)
        self._is_signed = is_signed
        self._previous = GENESIS
        self._sequence = 0
        self._oldest_uncovered: int | None = None

    def step(self, columns: tuple[Any, ...], stored: Any) -> None:
        sequence, name = columns[_SEQUENCE], f"Event {columns[_SEQUENCE]} ({columns[0]})"
        report, expected = self.report, self._sequence + 1
        report.events += 1
        if not isinstance(sequence, int):  # SQLite keeps whatever is put into a column
            report.complain(f"{name} was changed: its place is not a number.")
            return
        if report.is_closed or (self._end is not None and sequence > self._end):
            report.complain(f"{name} stands behind the end of the chain.")
        if sequence < expected:
            report.complain(f"{name} was inserted: its place is taken.")
            return
        if sequence > expected:
            which = f"Event {expected} is" if sequence == expected + 1 else f"Events {expected} to {sequence - 1} are"
            report.complain(f"{which} missing.")
        elif self._digest(columns) != stored:
            report.complain(f"{name} was changed, or what stands before it: its hash does not fit.")
        self._look_at_marks(columns, sequence, name)
        self._look_at_head(sequence, stored, name)
        if report.began_at is None:
            report.began_at = columns[1] if isinstance(columns[1], int) else None
        if sequence > self._last_head and self._oldest_uncovered is None:
            self._oldest_uncovered = columns[1] if isinstance(columns[1], int) else 0
        # Goes on from what is stored: one change is one problem, not one for every event that follows.
        self._previous = stored if isinstance(stored, bytes) else b""
        self._sequence = sequence

    def end(self, unsigned_since: int) -> None:
        report = self.report
        if not report.events:
            report.complain("The whole chain is missing: signed heads tell of it.")
        elif self._sequence < self._last_head:
            report.complain(
                f"Events {self._sequence + 1} to {self._last_head} are missing: a signed head tells of them."
            )
        elif self._last_head and self._oldest_uncovered is not None and self._oldest_uncovered < unsigned_since:
            first = self._last_head + 1
            report.complain(
                f"No head was signed over the events from {first} on: they were added later, or nobody signs."
            )

    def _digest(self, columns: tuple[Any, ...]) -> bytes | None:
        try:
            return digest(self._service, self._previous, columns)
        except (TypeError, ValueError):
            return None

    def _look_at_marks(self, columns: tuple[Any, ...], sequence: int, name: str) -> None:
        kind = columns[_KIND]
        if (kind == OPENED) != (sequence == 1):
            self.report.complain(f"{name} is not what the chain of a process begins with.")
        if kind in (OPENED, CLOSED):
            statement = mark(self._service, kind, self.report.chain, sequence, self._previous)
            if not self._is_signed(statement, str(columns[_RESOURCE])):
                self.report.complain(f"{name} is not signed by the service: somebody else made this chain.")
        self.report.is_closed = kind == CLOSED

    def _look_at_head(self, sequence: int, stored: Any, name: str) -> None:
        head = self._heads.get(sequence)
        if head is not None and head.hash != stored:
            self.report.complain(f"{name} is not the one that a signed head tells of: the chain was rewritten.")
