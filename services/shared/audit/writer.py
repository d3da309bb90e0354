"""Writes the chain of this process, many callers' events in one transaction."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa
import structlog
from prometheus_client import Counter
from ulid import ULID

from services.shared.audit import chain
from services.shared.audit.batches import Batches
from services.shared.audit.event import CLOSED, OPENED, Entry, Event, microseconds
from services.shared.audit.heads import Signatures
from services.shared.database import Database
from services.shared.errors import Unavailable
from services.shared.ids import new_id

# A ULID is 48 bits of milliseconds before 80 random ones.
_RANDOM_BITS = 80

_EVENTS = Counter("strongroom_audit_events_total", "Events in the audit log.")
_FAILURES = Counter("strongroom_audit_failures_total", "Attempts to write to the audit log that failed: alert on it.")

_log = structlog.get_logger()


class AuditUnavailable(Unavailable):
    """What must be recorded can't be, so it is not done."""

    reason = "AUDIT_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The audit log can't be written, and nothing is done without it. Try again.")


class Writer:
    """One chain, from `open` to `close`.

    What could not be written is kept and tried again before anything else, because what it tells of may have happened;
    until then `check` refuses whatever would have to be recorded.
    """

    def __init__(
        self, database: Database, table: sa.Table, signatures: Signatures, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._table = table
        self._insert = sa.insert(table)  # once: its text is looked up by what it is made of
        self._signatures = signatures
        self._clock = clock
        self.chain = new_id()
        # Sequence and hash of the last entry that is on disk.
        self.durable = (0, chain.GENESIS)
        self._previous = chain.GENESIS
        self._sequence = 0
        self._last_id = 0
        self._unwritten: list[Entry] = []
        self._batches = Batches(self._write)
        self._is_open = False
        self._is_failing = False

    def open(self) -> None:
        """Writes the first entry. Raises AuditUnavailable; a second time does what is left to do."""
        if not self._sequence:
            self._submit([Event(OPENED)])
        else:
            self.retry()
        self._is_open = True

    def close(self) -> None:
        """Writes the last entry, if there is a first. Raises AuditUnavailable."""
        if self._is_open:
            self._is_open = False
            self._submit([Event(CLOSED)])

    def check(self) -> None:
        """Raises AuditUnavailable while events can't be written."""
        if not self._is_open or self._is_failing:
            raise AuditUnavailable

    def retry(self) -> None:
        """Tries again what could not be written. Raises AuditUnavailable."""
        if self._is_failing:
            self._submit([])

    def write(self, events: Sequence[Event]) -> None:
        """Returns when the events are durable. Raises AuditUnavailable."""
        if not self._is_open:
            raise AuditUnavailable
        self._submit(events)

    def _submit(self, events: Sequence[Event]) -> None:
        if not self._batches.submit(events):
            raise AuditUnavailable

    def _write(self, events: list[Event]) -> bool:
        """Makes the events, and what is unwritten of earlier ones, durable; says whether they are."""
        self._unwritten += [self._sealed(event) for event in events]
        if not self._unwritten:
            return True
        try:
            with self._database.write() as connection:
                # The answer to the last attempt may have been lost, and not the attempt.
                done = self._last_sequence(connection) if self._is_failing else 0
                rows = [_row(entry) for entry in self._unwritten if entry.sequence > done]
                if rows:
                    connection.execute(self._insert, rows)
        except sa.exc.SQLAlchemyError as error:
            self._is_failing = True
            _FAILURES.inc()
            _log.error("audit events not written", events=len(self._unwritten), error=type(error).__name__)
            return False
        _EVENTS.inc(len(self._unwritten))
        last = self._unwritten[-1]
        self.durable, self._unwritten, self._is_failing = (last.sequence, last.hash), [], False
        return True

    def _sealed(self, event: Event) -> Entry:
        """The event as the next entry of the chain."""
        service, now, sequence = self._signatures.service, microseconds(self._clock()), self._sequence + 1
        if event.kind in (OPENED, CLOSED):
            statement = chain.mark(service, event.kind, self.chain, sequence, self._previous)
            event = replace(event, principal=service, resource=self._signatures.sign(statement))
        entry = Entry(self._next_id(now), now, event.bounded(), self.chain, sequence)
        hashed = chain.digest(service, self._previous, chain.values(entry))
        self._sequence, self._previous = sequence, hashed
        return replace(entry, hash=hashed)

    def _next_id(self, now: int) -> str:
        """Ids of a chain ascend, within a millisecond and if the clock is set back as well."""
        fresh = (now // 1000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS - 1)
        self._last_id = max(self._last_id + 1, fresh)
        return str(ULID.from_int(self._last_id))

    def _last_sequence(self, connection: sa.Connection) -> int:
        columns = self._table.c
        last = sa.select(sa.func.max(columns.sequence)).where(columns.chain == self.chain)
        return connection.scalar(last) or 0


def _row(entry: Entry) -> dict[str, object]:
    return dict(zip(chain.COLUMNS, chain.values(entry), strict=True)) | {"hash": entry.hash}
