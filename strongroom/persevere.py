"""Trying again while the server is away."""

import logging
import math
import random
import time
from collections.abc import Callable
from typing import TypeVar

from strongroom.errors import RateLimited, Unavailable

T = TypeVar("T")

# Attempts in a row that get no further than the best before them. With the waits between them: about a minute.
ATTEMPTS = 10
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 10.0
# Seconds that a limit may keep it waiting at a time: a window of the rate limit is a minute.
PATIENCE = 65.0

# Below WARNING, so that a library says nothing unless it is asked to.
log = logging.getLogger("strongroom.transfer")


def persevere(
    attempt: Callable[[], T], reached: Callable[[], int], *, sleep: Callable[[float], None] = time.sleep
) -> T:
    """Calls `attempt` until it does not raise Unavailable, or has raised it ATTEMPTS times without getting further.
    RateLimited is such a failure too, if it says to come back soon.

    Waits longer after each failure, at random, so that the clients of a server that restarts do not come at once
    (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/). However long a transfer takes,
    it goes on as long as it advances.

    Args:
        reached: how far the attempts got, in bytes. Sending the same bytes again is no advance.
    """
    best, failures = reached(), 0
    while True:
        try:
            return attempt()
        except (Unavailable, RateLimited) as error:
            if isinstance(error, RateLimited) and (error.retry_after is None or error.retry_after > PATIENCE):
                # Too large, or a quota that is used up: nobody waits for an hour without a word.
                raise
            now = reached()
            failures = 1 if now > best else failures + 1
            best = max(best, now)
            if failures == ATTEMPTS:
                raise
            seconds = min(_LONGEST_WAIT, _FIRST_WAIT * 2**failures) * random.uniform(0.5, 1)  # noqa: S311 - no secret
            # Sooner than the limit's window ends, or an open circuit lets calls through, an attempt would be wasted.
            seconds = max(seconds, error.retry_after or 0)
            why = "too many requests" if isinstance(error, RateLimited) else "connection lost"
            log.info("%s, going on in %d s", why, math.ceil(seconds))
            sleep(seconds)
