"""How many managers and models there are, asked of the models service."""

import threading
import time
from collections.abc import Callable

import grpc

from strongroom.models.v1 import managers_pb2, managers_pb2_grpc

# Anyone may ask: a crowd makes one question of it in so many seconds.
_FRESH_SECONDS = 10.0
# Seconds for an answer, for which whoever asked first waits.
_DEADLINE = 1.0


class RegistryCounts:
    """The counts as they were told last.

    Args:
        monotonic: seconds that only grow.
    """

    def __init__(self, channel: grpc.Channel, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stub = managers_pb2_grpc.ManagerServiceStub(channel)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._counts: managers_pb2.CountManagersResponse | None = None
        self._asked: float | None = None

    def get(self) -> managers_pb2.CountManagersResponse | None:
        """None if the models service has not told yet."""
        now = self._monotonic()
        with self._lock:
            fresh = self._asked is not None and now - self._asked < _FRESH_SECONDS
            if not fresh:
                self._asked = now
        if not fresh:
            try:
                self._counts = self._stub.CountManagers(managers_pb2.CountManagersRequest(), timeout=_DEADLINE)
            except grpc.RpcError:
                # What is known is better than nothing; health says what is wrong.
                return self._counts
        return self._counts
