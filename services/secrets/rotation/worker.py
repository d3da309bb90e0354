"""The service's own threads for rotations."""

import threading
from collections.abc import Callable

import structlog

# Seconds between two looks for what is due; what is asked for here is not waited for.
_TICK = 5.0
# So many secrets at a time: a server that answers slowly keeps the others not waiting.
_THREADS = 3

_log = structlog.get_logger()


class Worker:
    """Does one thing after the other, as long as there are any.

    Args:
        work: does one; False if there was none.
    """

    def __init__(self, work: Callable[[], bool]) -> None:
        self._work = work
        self._stop = threading.Event()
        self._wanted = threading.Condition()
        self._asked = 0
        self._threads = [threading.Thread(target=self._run, name=f"rotation-{n}", daemon=True) for n in range(_THREADS)]

    def start(self) -> None:
        for thread in self._threads:
            if thread.ident is None:
                thread.start()

    def wake(self) -> None:
        """There is something to do."""
        with self._wanted:
            self._asked += 1
            self._wanted.notify_all()

    def close(self) -> None:
        """Waits for what is being done; its steps are bounded."""
        self._stop.set()
        self.wake()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            seen = self._asked
            try:
                while not self._stop.is_set() and self._work():
                    pass
            except Exception as error:  # the next look is another chance, and the service works without
                _log.warning("no look for due rotations", error=type(error).__name__)
            with self._wanted:
                if self._asked == seen and not self._stop.is_set():
                    self._wanted.wait(_TICK)
