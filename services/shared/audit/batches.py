"""Group commit: one caller writes for all who wait."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass
class _Waiting(Generic[_Item]):
    """Items of one caller. `wake` is released when they are settled, or when it is this caller's turn to write.

    A bare lock: who waits for an Event is woken twice, by its setter and by the lock that the setter still holds.
    """

    items: Sequence[_Item]
    wake: threading.Lock = field(default_factory=_locked)
    is_settled: bool = False
    is_written: bool = False


class Batches(Generic[_Item]):
    """Whoever comes first writes; those who come meanwhile wait, and one of them writes for all of these.

    So 32 callers at once cost two transactions, not 32, and one caller alone waits for nobody.

    Args:
        write: makes items durable and says whether they are; called by one thread at a time.
    """

    def __init__(self, write: Callable[[list[_Item]], bool]) -> None:
        self._write = write
        self._queue: list[_Waiting[_Item]] = []
        self._is_led = False
        self._lock = threading.Lock()

    def submit(self, items: Sequence[_Item]) -> bool:
        """Returns when somebody has tried to write the items: whether they are durable."""
        waiting = _Waiting(items)
        with self._lock:
            self._queue.append(waiting)
            leads, self._is_led = not self._is_led, True
        if not leads:
            waiting.wake.acquire()
        if not waiting.is_settled:
            self._lead()
        return waiting.is_written

    def _lead(self) -> None:
        """Writes for all who wait, then hands over to one who came meanwhile."""
        with self._lock:
            batch, self._queue = self._queue, []
        is_written = False
        try:
            is_written = self._write([item for waiting in batch for item in waiting.items])
        finally:
            for waiting in batch:
                waiting.is_written, waiting.is_settled = is_written, True
                waiting.wake.release()
            with self._lock:
                self._is_led = bool(self._queue)
                if self._queue:
                    self._queue[0].wake.release()
