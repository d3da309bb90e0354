"""How often and when each key was used, counted beside the requests and written in batches."""

import threading
from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa
import structlog

from services.auth.tables import api_keys
from services.shared.database import Database

# Seconds between two writes: what a crash may lose.
_FLUSH_SECONDS = 1.0

_log = structlog.get_logger()


class Usage:
    """Counts uses in memory; a thread of its own adds them to the database."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._pending: dict[str, tuple[int, datetime]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and writes what is left."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def record(self, key_id: str) -> None:
        """Counts one use, now."""
        now = self._clock()
        with self._lock:
            count, _ = self._pending.get(key_id, (0, now))
            self._pending[key_id] = (count + 1, now)

    def flush(self) -> None:
        """Adds what was counted to the database. What can't be written is kept for the next time."""
        with self._lock:
            pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            self._write(pending)
        except sa.exc.SQLAlchemyError as error:
            _log.warning("usage not written, kept for the next time", error=type(error).__name__)
            with self._lock:
                for key_id, (count, at) in pending.items():
                    later, latest = self._pending.get(key_id, (0, at))
                    self._pending[key_id] = (count + later, latest)

    def _write(self, pending: dict[str, tuple[int, datetime]]) -> None:
        at = sa.bindparam("at", type_=api_keys.c.last_used_at.type)
        statement = (
            sa.update(api_keys)
            .where(api_keys.c.id == sa.bindparam("key_id"))
            .values(
                usage_count=api_keys.c.usage_count + sa.bindparam("uses"),
                # Another replica may have written a later moment.
                last_used_at=sa.case((api_keys.c.last_used_at > at, api_keys.c.last_used_at), else_=at),
            )
        )
        # In the order of ids, so that two replicas lock rows in the same order.
        rows = [{"key_id": key_id, "uses": uses, "at": at} for key_id, (uses, at) in sorted(pending.items())]
        with self._database.write() as connection:
            connection.execute(statement, rows)

    def _run(self) -> None:
        while not self._stopping.wait(_FLUSH_SECONDS):
            self.flush()
