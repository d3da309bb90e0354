"""The service's own thread: collects garbage every hour and forgets keys in time."""

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from services.models.collect import Collector

# Seconds between two looks at the caches: so much longer than allowed a key may stay in memory.
_TICK = 5.0
# After a start: what a crash left behind need not wait for an hour, nor disturb who is just coming back.
_FIRST = 60.0

_log = structlog.get_logger()


class Housekeeper:
    """Runs the collector every `interval` seconds."""

    def __init__(self, collector: Collector, forget_expired: Sequence[Callable[[], None]], interval: float) -> None:
        self._collector = collector
        self._forget_expired = forget_expired
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + min(_FIRST, self._interval)
        while not self._stop.wait(min(_TICK, self._interval)):
            for forget in self._forget_expired:
                forget()
            if time.monotonic() >= due:
                self._collect()
                due = time.monotonic() + self._interval

    def _collect(self) -> None:
        try:
            collected = self._collector.collect()
        except Exception as error:  # the next hour is another chance, and the service works without
            _log.warning("garbage was not collected", error=f"{type(error).__name__}: {error}")
        else:
            _log.info("garbage collected", **vars(collected))
