"""What `AsyncClient` runs in threads as it stands here; clients/make_async.py turns all else into coroutines.

Bulk work waits for disks and hashes, which no event loop can wait for; sessions wait for locks that processes share.
"""

from typing import TypeVar

T = TypeVar("T")


def transfer(method: T) -> T:
    """Over channels of its own, which end when the task that waits for it is cancelled."""
    return method


def blocking(method: T) -> T:
    """Over the channel that all of them share."""
    return method
