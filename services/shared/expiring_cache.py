"""A cache for key material: bounded in size, and nothing in it outlives its time."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ExpiringCache(Generic[K, V]):
    """Values by key, for `seconds` at most, of at most `capacity` weight together; the oldest goes first.

    An entry is not renewed by being read: a key that was destroyed elsewhere is forgotten in time.
    """

    def __init__(self, capacity: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._weight = 0
        # In the order in which they expire.
        self._entries: OrderedDict[K, tuple[V, int, float]] = OrderedDict()

    def get(self, key: K) -> V | None:
        self.forget_expired()
        with self._lock:
            entry = self._entries.get(key)
            return None if entry is None else entry[0]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Keeps the value, unless it alone is heavier than the capacity."""
        with self._lock:
            self._drop(key)
            if weight > self._capacity:
                return
            self._entries[key] = (value, weight, self._clock() + self._seconds)
            self._weight += weight
            while self._weight > self._capacity:
                self._drop(next(iter(self._entries)))

    def drop(self, key: K) -> None:
        with self._lock:
            self._drop(key)

    def forget_expired(self) -> None:
        """Called at every read, and from time to time by who owns the cache."""
        with self._lock:
            now = self._clock()
            while self._entries and next(iter(self._entries.values()))[2] <= now:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._weight -= entry[1]
