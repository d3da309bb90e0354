"""When a call is made again, and how long to wait before it.

The waits grow and are drawn at random from nothing up to their bound (full jitter,
https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/), so that the clients of a server that
restarts do not come back together. Where the server says when to come back, that is the least. This is the only layer
that repeats calls: gRPC is told of no retry policy of its own.
"""

import asyncio
import enum
import logging
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import tenacity

from strongroom.errors import RateLimited, ServerUnproven, StrongroomError, Unavailable

T = TypeVar("T")

ATTEMPTS = 5
# Seconds a call may go on being repeated: a window of the rate limit is a minute.
PATIENCE = 65.0
_FIRST_BOUND = 0.4
_LAST_BOUND = 5.0

# Below WARNING, so that a library says nothing unless it is asked to.
log = logging.getLogger("strongroom.retries")


class Repeat(enum.Enum):
    """What the failure of a call allows."""

    NEVER = enum.auto()
    # The server refused the call before it did anything, and said when to come back.
    REFUSED = enum.auto()
    # And the server was away: asking twice changes nothing more than asking once.
    SAFE = enum.auto()


class Retries:
    """Repeats calls. Safe to use from several threads.

    Args:
        sleep: waits so many seconds.
    """

    def __init__(self, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._loops = {repeat: tenacity.Retrying(sleep=sleep, **_rules(repeat)) for repeat in Repeat}

    def run(self, attempt: Callable[[], T], repeat: Repeat) -> T:
        """What `attempt` returns, or raises the last time."""
        return self._loops[repeat](attempt)


class AsyncRetries:
    """The same for the tasks of an event loop.

    Args:
        sleep: waits so many seconds.
    """

    def __init__(self, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._loops = {repeat: tenacity.AsyncRetrying(sleep=sleep, **_rules(repeat)) for repeat in Repeat}

    async def run(self, attempt: Callable[[], Awaitable[T]], repeat: Repeat) -> T:
        """What `attempt` returns, or raises the last time."""
        # A copy, as a loop keeps its state by thread: tasks would take each other's.
        return await self._loops[repeat].copy()(attempt)


def _rules(repeat: Repeat) -> dict[str, Any]:
    return {
        "retry": tenacity.retry_if_exception(partial(_may_repeat, repeat)),
        "wait": _wait,
        "stop": tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_before_delay(PATIENCE),
        "before_sleep": _tell,
        "reraise": True,
    }


_jitter = tenacity.wait_random_exponential(multiplier=_FIRST_BOUND, max=_LAST_BOUND)


def _may_repeat(repeat: Repeat, error: BaseException) -> bool:
    if isinstance(error, RateLimited):
        # Without a time to come back it may be a message that is too long, and will be.
        return repeat is not Repeat.NEVER and error.retry_after is not None
    if isinstance(error, ServerUnproven):
        return False
    if isinstance(error, Unavailable) and repeat is Repeat.SAFE:
        return error.code == "UNAVAILABLE" or error.reason == "CONNECTION_BROKEN"
    return False


def _wait(state: tenacity.RetryCallState) -> float:
    error = _error_of(state)
    return (error.retry_after or 0) + _jitter(state)


def _tell(state: tenacity.RetryCallState) -> None:
    # Somebody who waits for the limit waits long enough to be told why.
    limited = isinstance(_error_of(state), RateLimited)
    why = "too many requests" if limited else "no answer"
    log.log(
        logging.INFO if limited else logging.DEBUG, "%s, calling again in %d s", why, math.ceil(state.upcoming_sleep)
    )


def _error_of(state: tenacity.RetryCallState) -> StrongroomError:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, StrongroomError)
    return error
