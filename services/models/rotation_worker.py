"""The service's own thread for re-encryptions, and for rotations that a crash interrupted."""

import threading
from collections.abc import Callable

import structlog

# Seconds between two looks for work; a re-encryption that is begun here is not waited for.
_TICK = 5.0

_log = structlog.get_logger()


class RotationWorker:
    """Works one job after another, as long as there are any.

    Args:
        work: takes a job and works on it; it asks now and then whether to stop. False if there was none.
        resume: completes rotations that were interrupted.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], bool], resume: Callable[[], object]) -> None:
        self._work = work
        self._resume = resume
        self._stop = threading.Event()
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rotation", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._wanted.set()

    def close(self) -> None:
        self._stop.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wanted.clear()
            try:
                self._resume()
                while not self._stop.is_set() and self._work(self._stop.is_set):
                    pass
            except Exception as error:  # the next look is another chance, and the service works without
                _log.warning("keys were not rotated", error=f"{type(error).__name__}: {error}")
            self._wanted.wait(_TICK)
