"""A circuit breaker: after several calls in a row that could not connect, the next ones fail at once for a while.

Own code, as the two libraries of the field do not fit a client that threads share: pybreaker holds its lock while it
makes the call, so calls go one after another (https://github.com/danielfm/pybreaker/issues/3), and circuitbreaker has
no lock at all (https://github.com/fabfuel/circuitbreaker/issues/61).
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from strongroom.errors import CircuitOpen, StrongroomError, Unavailable

# Calls in a row, their repetitions included, that find nobody before the circuit opens.
FAILURES = 5
# Seconds for which it stays open.
REST = 10.0


class Breaker:
    """Closed: calls pass. Open: they fail with CircuitOpen. Half open, after the rest: one call is let through, and
    what becomes of it closes the circuit or opens it again. An error that the server answers with is an answer.

    Args:
        clock: seconds, never going back.
    """

    def __init__(
        self, failures: int = FAILURES, rest: float = REST, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._rest = rest
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Around a call, whose StrongroomError decides. Raises CircuitOpen instead of making it."""
        probe = self._admit()
        try:
            yield
        except StrongroomError as error:
            self._told(probe, connected=not _found_nobody(error))
            raise
        except BaseException:
            # Ctrl-C says nothing about the server, and the probe must not stay taken for ever.
            self._give_back(probe)
            raise
        self._told(probe, connected=True)

    def _admit(self) -> bool:
        """Whether the call is the one that probes."""
        with self._lock:
            if self._open_until is None:
                return False
            left = self._open_until - self._clock()
            if left > 0 or self._probing:
                raise _refusal(self._failures, max(1, math.ceil(left)))
            self._probing = True
            return True

    def _told(self, probe: bool, *, connected: bool) -> None:
        with self._lock:
            if self._open_until is not None and not probe:
                # Begun before the circuit opened: only the probe decides now.
                return
            self._probing = False
            self._failures = 0 if connected else self._failures + 1
            reopened = probe or self._failures >= self._limit
            self._open_until = self._clock() + self._rest if reopened and not connected else None

    def _give_back(self, probe: bool) -> None:
        if probe:
            with self._lock:
                self._probing = False


def _found_nobody(error: StrongroomError) -> bool:
    """Whether no Strongroom answered: what it says itself carries a reason."""
    return isinstance(error, Unavailable) and error.reason in ("", "CONNECTION_BROKEN")


def _refusal(failures: int, seconds: int) -> CircuitOpen:
    message = f"{failures} calls in a row did not reach Strongroom. The next is made in {seconds} s."
    return CircuitOpen(message, code="UNAVAILABLE", reason="CIRCUIT_OPEN", retry_after=seconds)
