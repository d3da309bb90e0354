"""The audit log of this process: what the layers and the domain record events with."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from services.shared.audit import chain
from services.shared.audit.denials import Denials
from services.shared.audit.event import CLOSED, Event, microseconds
from services.shared.audit.heads import HeadsFile, Signatures
from services.shared.audit.intents import Intent, Intents
from services.shared.audit.log import AuditLog
from services.shared.audit.writer import AuditUnavailable, Writer
from services.shared.database import Database
from services.shared.tokens import ServiceIdentity

# Seconds between two signed heads: what somebody with access to the database can delete unnoticed is younger.
HEAD_SECONDS = 60.0
# Seconds until a refusal can be read.
_TICK_SECONDS = 1.0

# Whether it was done, nobody can say.
_INTERRUPTED: dict[str, Any] = {"outcome": "failed", "code": "UNKNOWN", "reason": "INTERRUPTED"}

_log = structlog.get_logger()


class Trail:
    """Records events: `record` for what must not happen without its event, `note` for refusals.

    Args:
        database: the service's own.
        table: the audit table in it.
        identity: whose key signs.
        data_dir: heads are kept in its folder `audit`.
        clock: the time of events.
    """

    def __init__(
        self,
        database: Database,
        table: sa.Table,
        identity: ServiceIdentity,
        data_dir: Path,
        clock: Callable[[], datetime],
    ) -> None:
        signatures = Signatures(identity)
        self._clock = clock
        self._writer = Writer(database, table, signatures, clock)
        self._heads = HeadsFile(data_dir / "audit", signatures)
        self._intents = Intents(data_dir / "audit", identity.name)
        self._signatures = signatures
        self._denials = Denials(time.monotonic)
        # What reads the log.
        self.log = AuditLog(database, table, signatures, self._heads, clock)
        self._signed = 0
        self._signing = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        """Opens the chain. Raises AuditUnavailable or OSError; a second time does what is left to do."""
        if self._thread.ident is None:
            self._intents.hold(self._writer.chain)
            self._writer.open()
            self._settle_what_died()
            self.sign_head()
            self._thread.start()

    def close(self) -> None:
        """Writes what was noted, ends the chain and signs its end."""
        self._stopping.set()
        if self._thread.ident is None:
            return
        self._thread.join()
        try:
            self.flush(end=True)
            self._writer.close()
            self.sign_head(is_final=True)
            self._intents.release()
        except (AuditUnavailable, OSError) as error:
            _log.error("the chain of audit events ends without its last event", error=str(error))

    def check(self) -> None:
        """Raises AuditUnavailable while events can't be written: what needs one must not begin."""
        self._writer.check()

    def begin(self, event: Event) -> Intent:
        """Returns when it is on disk that this is about to happen; `settle` it when it has its event.

        A process that is killed in between leaves the intent: the next one records that it was INTERRUPTED. Raises
        AuditUnavailable.
        """
        intent = Intent(event.bounded(), after=self._writer.durable[0])
        if not self._intents.begin(intent):
            self._intents.settle(intent)
            raise AuditUnavailable
        return intent

    def settle(self, intent: Intent) -> None:
        """Forgets what was begun."""
        self._intents.settle(intent)

    def record(self, event: Event) -> None:
        """Returns when the event is durable. Raises AuditUnavailable."""
        self._writer.write([event])

    def note(self, event: Event) -> None:
        """Takes an event that is written later, and counted where it comes in floods."""
        self._denials.note(event)

    def flush(self, *, end: bool = False) -> None:
        """Writes what was noted; with `end` the counts of what is not over yet as well. Raises AuditUnavailable."""
        if drained := self._denials.drain(end=end):
            self._writer.write(drained)

    def sign_head(self, *, is_final: bool = False) -> None:
        """Signs where the chain is, if it has grown. Raises OSError."""
        with self._signing:
            sequence, last = self._writer.durable
            if sequence > self._signed:
                now = microseconds(self._clock())
                service = self._signatures.service
                self._heads.append(chain.Head(service, self._writer.chain, sequence, last, now, is_final))
                self._signed = sequence

    def verify(self) -> list[chain.Report]:
        """Recomputes all chains in the database, this one up to now. See `AuditLog.verify`."""
        try:
            self.sign_head()
        except OSError as error:
            _log.error("a head was not signed", error=str(error))
        return self.log.verify()

    def _settle_what_died(self) -> None:
        """Ends the chains of processes that died: signs where they stand, and records what was interrupted."""
        for name, intents, forget in self._intents.broken():
            last = self.log.last(name)
            if last is not None and last[1] != CLOSED:
                sequence, _, hashed = last
                now = microseconds(self._clock())
                self._heads.append(chain.Head(self._signatures.service, name, sequence, hashed, now, is_final=True))
            interrupted = [replace(event, **_INTERRUPTED) for event in self.log.without_event(name, intents)]
            self._writer.write(interrupted)
            forget()

    def _run(self) -> None:
        next_head = time.monotonic() + HEAD_SECONDS
        while not self._stopping.wait(_TICK_SECONDS):
            try:
                self._writer.retry()
                self.flush()
                if time.monotonic() >= next_head:
                    next_head = time.monotonic() + HEAD_SECONDS
                    self.sign_head()
            except (AuditUnavailable, OSError) as error:
                _log.error("the audit log is behind", error=str(error))
            except Exception:
                _log.exception("unforeseen error in the audit log")
