"""The threads that run jobs: as many as there are slots, each at one job at a time."""

import threading
from collections.abc import Callable

import structlog

from services.models.jobs.execution import Execution
from services.models.jobs.queue import Queue

# Seconds between two looks for jobs that other processes queued, or lost.
_TICK = 1.0

_log = structlog.get_logger()


class Workers:
    """Takes jobs from the queue as long as there are any.

    Args:
        new_id: makes up who holds a job: another for each, so that a holder that was taken for dead is none any more.
    """

    def __init__(self, queue: Queue, execution: Execution, slots: int, new_id: Callable[[], str]) -> None:
        self._queue = queue
        self._execution = execution
        self._new_id = new_id
        self._stopping = threading.Event()
        self._wanted = threading.Condition()
        self._threads = [threading.Thread(target=self._run, name=f"job-{n}", daemon=True) for n in range(slots)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """There is a job."""
        with self._wanted:
            self._wanted.notify()

    def close(self) -> None:
        """Ends the processes; their jobs are taken by other services, or by the next start."""
        self._stopping.set()
        with self._wanted:
            self._wanted.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                claim = self._queue.claim(self._new_id())
                if claim is not None:
                    self._execution.run(claim, self._stopping.is_set)
                    continue
            except Exception as error:  # its lease ends, and then it is claimed again
                _log.warning("a job could not be worked on", error=f"{type(error).__name__}: {error}")
            with self._wanted:
                if not self._stopping.is_set():
                    self._wanted.wait(_TICK)
