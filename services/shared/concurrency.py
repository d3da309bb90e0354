"""How many calls run and wait at a time, so that no caller and no crowd can take a service from the others."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
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


class Patience:
    """Ends the calls of strangers whose message does not come: each has a thread, and nobody to count it against.

    Callers with a credential are held to a share of the threads instead: their messages may be large, and slow.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._waiting: dict[int, tuple[float, Call]] = {}

    @contextmanager
    def waiting(self, call: Call) -> Iterator[None]:
        """While the block runs, the call's message is waited for."""
        if call.identified:
            yield
            return
        self._waiting[id(call)] = self._clock(), call
        try:
            yield
        finally:
            del self._waiting[id(call)]

    def end_overdue(self) -> None:
        """Ends the calls that have waited for too long."""
        for since, call in list(self._waiting.values()):
            if self._clock() - since >= self._seconds:
                call.context.cancel()


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
