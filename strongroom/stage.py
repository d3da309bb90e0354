"""The steps of a pipeline: threads with bounded queues between them."""

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Full, Queue
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class _End:
    """Nothing comes behind this."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Stage(Generic[T]):
    """Calls `work` with each item, in a thread of its own; at most `waiting` items wait for it.

    An exception of `work` ends the stage and is raised by the next `put`, or by leaving the block, which waits until
    every item was worked on.
    """

    def __init__(self, work: Callable[[T], None], *, waiting: int, name: str) -> None:
        self._work = work
        self._items: Queue[T | _End] = Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hands the item over, waiting for room."""
        self._items.put(item)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not isinstance(item := self._items.get(), _End):
            # After an error items are only taken out, so that nobody waits for room forever.
            if self._error is None:
                try:
                    self._work(item)
                except BaseException as error:
                    self._error = error

    def __enter__(self) -> "Stage[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._items.put(_End())
        self._thread.join()
        if self._error is not None and self._error is not error:
            raise self._error


class Ahead(Generic[T]):
    """Iterates over `items` in a thread of its own, at most `waiting` items ahead of whoever takes them."""

    def __init__(self, items: Iterable[T], *, waiting: int, name: str) -> None:
        self._items = items
        self._taken: Queue[T | _End] = Queue(waiting)
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(_End())
        except BaseException as error:
            self._put(_End(error))

    def _put(self, item: T | _End) -> bool:
        while not self._abandoned.is_set():
            try:
                self._taken.put(item, timeout=0.1)
            except Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[T]:
        while not isinstance(item := self._taken.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    def __enter__(self) -> "Ahead[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self._abandoned.set()
        self._thread.join()
