"""Refused credentials by address: whoever guesses is held to the same rate as any client.

The gateway counts a request against its credential, once auth has judged that. What auth refuses has none, so it counts
against the address, here. Of an address that has used up its bucket nothing is judged any more, but credentials that
were good a while ago: who guesses does not lock out who works behind the same address.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from services.auth.admission import Attempt
from services.auth.networks import network
from strongroom.rates import Rate

# Addresses and good credentials that are remembered; the one that was quiet for longest is forgotten first.
_REMEMBERED = 10_000

K = TypeVar("K")
V = TypeVar("V")


class Guesses:
    """A bucket of tokens for each address, kept as the moment at which it is full again.

    Args:
        rate: of refusals; None for no limit.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: Rate | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._good: OrderedDict[bytes, None] = OrderedDict()
        # Credentials themselves are kept nowhere.
        self._salt = os.urandom(32)
        self._lock = threading.Lock()

    def seconds_to_wait(self, attempt: Attempt) -> float:
        """How long nothing of this address is judged; 0 if it may be."""
        if self._rate is None:
            return 0.0
        with self._lock:
            full_at = self._full_at.get(network(attempt.address), 0.0)
        token = self._rate.seconds / self._rate.requests
        wait = full_at + token - self._rate.seconds - self._clock()
        # Half a token, because floats are not exact.
        if wait <= token / 2 or self._digest(attempt) in self._good:
            return 0.0
        return wait

    def refused(self, attempt: Attempt) -> None:
        """Counts the attempt against its address."""
        if self._rate is None:
            return
        origin, token = network(attempt.address), self._rate.seconds / self._rate.requests
        with self._lock:
            full_at = max(self._clock(), self._full_at.get(origin, 0.0)) + token
            _remember(self._full_at, origin, full_at)

    def admitted(self, attempt: Attempt) -> None:
        """Remembers that the credential was good."""
        if self._rate is None or (attempt.api_key is None and attempt.authorization is None):
            return
        digest = self._digest(attempt)
        with self._lock:
            _remember(self._good, digest, None)

    def _digest(self, attempt: Attempt) -> bytes:
        credential = f"{attempt.api_key}\n{attempt.authorization}".encode(errors="surrogatepass")
        return hashlib.blake2b(credential, digest_size=16, key=self._salt).digest()


def _remember(store: OrderedDict[K, V], key: K, value: V) -> None:
    store[key] = value
    store.move_to_end(key)
    while len(store) > _REMEMBERED:
        store.popitem(last=False)
