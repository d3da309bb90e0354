"""A model that takes long to be stored: whoever stores it says meanwhile that it is at it."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from services.models.jobs.model_stream import ModelStream
from services.models.jobs.queue import LeaseLost
from services.models.versions import Version

pytestmark = pytest.mark.row("S1.3")
_VERSION = Version(1, "U", "default", "m", "v", 1, 1, datetime.now(UTC), "somebody", "d", "k", "m", bytes(32), True)


def test_the_lease_is_kept_while_the_store_is_slow() -> None:
    looked = threading.Semaphore(0)

    def store(body: Iterator[bytes], check: Callable[[], None]) -> Version:
        assert len(list(body)) == 20
        # As long as it takes to be looked at thrice.
        assert all(looked.acquire(timeout=10) for _ in range(3))
        check()
        return _VERSION

    stream = ModelStream(store, lambda: looked.release())
    for _ in range(20):
        stream.put(b"piece")
    assert stream.finish(lambda: None) is _VERSION


def test_a_job_that_is_canceled_meanwhile_stores_nothing() -> None:
    def store(body: Iterator[bytes], check: Callable[[], None]) -> Version:
        list(body)
        for _ in range(2000):
            check()
            time.sleep(0.005)
        return _VERSION

    def watch() -> None:
        raise LeaseLost

    stream = ModelStream(store, watch)
    stream.put(b"piece")
    with pytest.raises(LeaseLost):
        stream.finish(lambda: None)
    with pytest.raises(LeaseLost):  # what the store got to hear
        stream.put(b"further")
