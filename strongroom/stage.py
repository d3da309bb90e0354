"""One step of a pipeline: a thread that works on items in the order in which they come."""

import threading
from collections.abc import Callable
from queue import Queue
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class _End:
    """Nothing comes behind this."""


class Stage(Generic[T]):
    """Calls `work` with each item, in a thread of its own; at most `waiting` items wait for it.

    An exception of `work` ends the stage and is raised by the next `put`, or by leaving the block.
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
        self._raise()

    def finish(self) -> None:
        """Returns once every item was worked on."""
        self._end()
        self._raise()

    def _run(self) -> None:
        while not isinstance(item := self._items.get(), _End):
            # After an error items are only taken out, so that nobody waits for room forever.
            if self._error is None:
                try:
                    self._work(item)
                except BaseException as error:
                    self._error = error

    def _end(self) -> None:
        if self._thread.is_alive():
            self._items.put(_End())
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def __enter__(self) -> "Stage[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if kind is None:
            self._raise()
