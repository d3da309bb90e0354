"""Reads ahead in a thread of its own, a bounded number of items."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Queue
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class _Producer(Generic[T]):
    """Puts the items of an iterator into a queue until they end or nobody wants them any more."""

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self.queue: Queue[T | _End] = Queue(depth)
        self._items = items
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._unwanted.set()
        while self._thread.is_alive():  # it may wait for room in the queue
            while not self.queue.empty():
                self.queue.get_nowait()
            self._thread.join(0.01)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                self.queue.put(item)
                if self._unwanted.is_set():
                    return
        except BaseException as raised:  # handed over to who iterates
            error = raised
        self.queue.put(_End(error))


def read_ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items, `depth` of which are made before they are asked for. Close it if you do not exhaust it."""
    producer = _Producer(items, depth)
    try:
        while not isinstance(item := producer.queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        producer.stop()
