"""Reads the audit log of a service: lists events, and recomputes its chains."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from ulid import ULID

from services.shared.audit import chain
from services.shared.audit.event import LENGTHS, Entry, Event, microseconds
from services.shared.audit.heads import HeadsFile, Signatures
from services.shared.audit.intents import Intent
from services.shared.database import Database

# Rows in memory at a time.
_BATCH = 1000
# Heads are signed each minute. Events without one for so many microseconds were added by somebody else.
_UNSIGNED = 180_000_000
_LAST_MILLISECOND = 2**48 - 1
# An id may be later than its event's time by what a clock was set back: ids only narrow a search, times decide.
_SLACK = 60_000_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events; empty fields match everything. Texts are whole values, or beginnings that end in `*`.

    `method` is a full or a short name. `since` and `until` are microseconds since 1970.
    """

    principal: str = ""
    kind: str = ""
    method: str = ""
    resource: str = ""
    outcome: str = ""
    request_id: str = ""
    since: int | None = None
    until: int | None = None


class AuditLog:
    """The log of one service, whichever of its processes wrote it."""

    def __init__(
        self,
        database: Database,
        table: sa.Table,
        signatures: Signatures,
        heads: HeadsFile,
        clock: Callable[[], datetime],
    ) -> None:
        self.service = signatures.service
        self._database = database
        self._table = table
        self._columns = [table.c[name] for name in chain.COLUMNS]
        self._signatures = signatures
        self._heads = heads
        self._clock = clock

    def entries(self, wanted: Filter, limit: int, before_id: str = "") -> list[Entry]:
        """At most `limit` entries, the latest first, those before an id alone if one is given."""
        columns = self._table.c
        query = sa.select(self._table).where(*_conditions(columns, wanted)).order_by(columns.id.desc()).limit(limit)
        if before_id:
            query = query.where(columns.id < before_id)
        with self._database.read() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def last(self, chain_id: str) -> tuple[int, str, bytes] | None:
        """Sequence, kind and hash of a chain's last entry; None if there is none."""
        columns = self._table.c
        query = sa.select(columns.sequence, columns.kind, columns.hash).where(columns.chain == chain_id)
        with self._database.read() as connection:
            row = connection.execute(query.order_by(columns.sequence.desc()).limit(1)).one_or_none()
        return None if row is None else (row.sequence, row.kind, row.hash)

    def without_event(self, chain_id: str, intents: Sequence[Intent]) -> list[Event]:
        """What was begun by the process that wrote this chain, and has no event in it."""
        left = Counter(map(_key, (intent.event for intent in intents)))
        columns = self._table.c
        query = sa.select(columns.request_id, columns.method, columns.principal).where(
            columns.chain == chain_id, columns.sequence > min((intent.after for intent in intents), default=0)
        )
        with self._database.read() as connection:
            if intents:
                for row in connection.execute(query.execution_options(yield_per=_BATCH)):
                    left[tuple(row)] -= 1
        events = {_key(intent.event): intent.event for intent in intents}
        return [event for key, event in events.items() for _ in range(left[key])]

    def verify(self) -> list[chain.Report]:
        """Recomputes all chains, and compares them with the signed heads at hand; the oldest chain first.

        Takes some 10 µs an event, and memory for a batch of events and 32 heads a chain.
        """
        # Heads first: the events that they tell of are there by now.
        signed = self._heads.latest()
        unsigned_since = microseconds(self._clock()) - _UNSIGNED
        reports = []
        with self._database.read() as connection:
            known = connection.scalars(sa.select(self._table.c.chain).distinct()).all()
            for name in sorted({*known, *signed}):
                found = signed.get(name, ())
                good = [each.head for each in found if self._heads.is_signed(each)]
                rows = self._rows(connection, name)
                is_signed = self._signatures.is_signed
                report = chain.verify(self.service, name, rows, good, is_signed, unsigned_since)
                if len(good) < len(found):
                    report.complain("There are heads of this chain that the service's key did not sign.")
                reports.append(report)
        return sorted(reports, key=lambda report: report.began_at or 0)

    def _rows(self, connection: sa.Connection, chain_id: str) -> Iterator[tuple[tuple[Any, ...], Any]]:
        columns = self._table.c
        query = sa.select(*self._columns, columns.hash).where(columns.chain == chain_id).order_by(columns.sequence)
        for row in connection.execute(query.execution_options(yield_per=_BATCH)):
            yield tuple(row[:-1]), row[-1]


def _conditions(columns: Any, wanted: Filter) -> Iterator[sa.ColumnElement[bool]]:
    for name in ("principal", "kind", "resource", "outcome", "request_id"):
        if text := getattr(wanted, name):
            yield _matches(columns[name], text)
    if wanted.method:
        name, is_prefix = wanted.method.removesuffix("*").removeprefix("/"), wanted.method.endswith("*")
        short = columns.method.contains if is_prefix else columns.method.endswith
        yield _matches(columns.method, wanted.method.removeprefix("/")) | short(f"/{name}", autoescape=True)
    if wanted.since is not None:
        yield columns.time >= wanted.since
        yield columns.id >= _first_id(wanted.since)
    if wanted.until is not None:
        yield columns.time < wanted.until
        yield columns.id < _first_id(wanted.until + _SLACK)


def _matches(column: sa.ColumnElement[str], text: str) -> sa.ColumnElement[bool]:
    # Not LIKE: on SQLite that takes `A` for `a`.
    return sa.func.substr(column, 1, len(text) - 1) == text[:-1] if text.endswith("*") else column == text


def _key(event: Event) -> tuple[str, ...]:
    return event.request_id, event.method, event.principal


def _first_id(time: int) -> str:
    """The least id of that moment."""
    milliseconds = min(max(time // 1000, 0), _LAST_MILLISECOND)
    return str(ULID.from_int(milliseconds << 80))


def _entry(row: Any) -> Entry:
    event = Event(**{name: getattr(row, name) for name in LENGTHS}, count=row.count)
    return Entry(row.id, row.time, event, row.chain, row.sequence, row.hash)
