"""How many calls run and wait at a time, so that no caller and no crowd can take a service from the others."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from services.shared.call import Call
from services.shared.errors import ResourceExhausted

_RETRY_SECONDS = 1.0


class TooManyConcurrentCalls(ResourceExhausted):
    reason = "TOO_MANY_CONCURRENT_CALLS"


class Overloaded(ResourceExhausted):
    reason = "OVERLOADED"

    def __init__(self) -> None:
        super().__init__("The service has more requests than it can keep. Try again.", retry_after=_RETRY_SECONDS)


class Threads(ThreadPoolExecutor):
    """Threads, and the calls that wait for one of them."""

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._work_queue.qsize()


class ConcurrentCalls:
    """The layer that holds each caller to `limit` calls at a time, streams and idle ones included.

    All sessions of a user and all versions of a key are one caller. Services are not limited: they work for many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: Counter[str] = Counter()
        # Reentrant: a stream that the garbage collector ends leaves wherever it strikes, in here too.
        self._lock = threading.RLock()

    @contextmanager
    def layer(self, call: Call) -> Iterator[None]:
        if not call.identified or call.principal.service:
            yield
            return
        caller = call.principal.id
        self._enter(caller)
        try:
            yield
        finally:
            self._leave(caller)

    def _enter(self, caller: str) -> None:
        with self._lock:
            if self._running[caller] >= self._limit:
                raise TooManyConcurrentCalls(
                    f"You have {self._limit} calls under way, as many as may be at a time. Wait for one to end.",
                    retry_after=_RETRY_SECONDS,
                    limit=str(self._limit),
                )
            self._running[caller] += 1

    def _leave(self, caller: str) -> None:
        with self._lock:
            self._running[caller] -= 1
            if not self._running[caller]:
                del self._running[caller]
