"""Deletes, from time to time, rows that nobody asks for any more."""

import threading
from collections.abc import Callable, Sequence

import sqlalchemy as sa
import structlog

_SECONDS = 600.0

_log = structlog.get_logger()


class Cleaner:
    """A thread that runs every task each ten minutes. Replicas do so too: tasks may be repeated."""

    def __init__(self, tasks: Sequence[Callable[[], None]], seconds: float = _SECONDS) -> None:
        self._tasks = tasks
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cleaner", daemon=True)

    def start(self) -> None:
        """Begins; a second time does nothing, because a service's start may be repeated."""
        if self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            for task in self._tasks:
                try:
                    task()
                except sa.exc.SQLAlchemyError as error:
                    # Another replica may hold the rows: what is not deleted now is deleted next time.
                    _log.warning("not cleaned", error=type(error).__name__)
