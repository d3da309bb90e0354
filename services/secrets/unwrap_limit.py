"""How many keys a service may have unwrapped: who has stolen its identity empties the keyring slowly, and is seen."""

import threading
from collections.abc import Callable

from services.shared.errors import ResourceExhausted
from strongroom.rates import Rate


class UnwrapLimited(ResourceExhausted):
    reason = "UNWRAP_LIMITED"


class UnwrapLimit:
    """A bucket of tokens for each service, a token a key, kept as the moment at which it is full again.

    Args:
        rate: of keys; None for no limit.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: Rate | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        # Owners are the few services there are.
        self._full_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, owner: str, count: int) -> None:
        """Counts keys that are about to be unwrapped. Raises UnwrapLimited, and counts nothing then.

        More at once than the bucket holds are let pass when it is full: such a request would never be served.
        """
        if self._rate is None:
            return
        token = self._rate.seconds / self._rate.requests
        with self._lock:
            now = self._clock()
            full_at = max(now, self._full_at.get(owner, 0.0))
            wait = full_at + min(count, self._rate.requests) * token - self._rate.seconds - now
            # Half a token, because floats are not exact.
            if wait > token / 2:
                message = f"The {owner} service has had too many keys unwrapped. Try again in {wait:.0f} s."
                raise UnwrapLimited(message, retry_after=wait)
            self._full_at[owner] = full_at + count * token
