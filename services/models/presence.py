"""Whether the client of a stream is there still."""

import threading
from collections.abc import Iterator
from typing import TypeVar

import grpc

from services.shared.errors import Aborted

M = TypeVar("M")

_NEWS_SECONDS = 0.02


class Presence:
    """Whether the client is there still.

    grpcio ends the iterator of a stream that broke like one that ended, if it learns of the missing message before it
    learns of the cancellation: of 50 broken streams 8 were so. The news comes within milliseconds.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._gone = threading.Event()
        if not context.add_callback(self._gone.set):
            self._gone.set()

    def until_end(self, messages: Iterator[M]) -> Iterator[M]:
        """The messages; at their end it waits for bad news, while what came is still being stored."""
        yield from messages
        self._gone.wait(_NEWS_SECONDS)
        self.check()

    def check(self) -> None:
        """Raises Aborted if the client has gone."""
        if self._gone.is_set():
            raise Aborted("The client went away before the end of its request.", reason="CLIENT_GONE")
