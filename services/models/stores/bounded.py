"""Answers of stores, bounded: none takes longer or has more bytes than what was asked for explains.

The SDKs bound silence alone: a server that sends a byte now and then, or never stops, would keep a thread for ever or
take all memory. All of them speak through urllib3; so here its connections get answers that look at clock and count
with each read, of headers as of bodies.
"""

import http.client
import io
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from requests.adapters import HTTPAdapter

# Bytes a second that an answer has on average, after the seconds for which a store may be silent.
LEAST_RATE = 64 * 1024
# Bytes of an answer beside what was asked for: headers, an error's text.
_AROUND = 1024 * 1024
# A page of a listing: thousand names of a KiB, written down in XML.
_USUAL = 32 * 1024 * 1024
# No object is larger: a manifest has at most 256 MiB.
_WHOLE = 256 * 1024 * 1024 + 1


class _Expected(threading.local):
    bytes = _USUAL


_expected = _Expected()


@contextmanager
def expecting(length: int | None) -> Iterator[None]:
    """This thread's answers in the block have at most so many bytes; None: those of any object."""
    before, _expected.bytes = _expected.bytes, _WHOLE if length is None else length
    try:
        yield
    finally:
        _expected.bytes = before


class _BoundedReader(io.RawIOBase):
    """What a socket receives for one answer. TimeoutError if it is slow, OSError if it is too much."""

    def __init__(self, raw: io.RawIOBase, silence: float) -> None:
        self._raw = raw
        self._silence = silence
        self._left = _expected.bytes + _AROUND
        self._began = time.monotonic()
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() - self._began > self._silence + self._received / LEAST_RATE:
            raise TimeoutError("the answer is too slow")
        if self._received > self._left:
            raise OSError("the answer is larger than what was asked for")
        count = self._raw.readinto(buffer)
        self._received += count or 0
        return count if count is None else int(count)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    def __init__(self, silence: float, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        raw: Any = self.fp.detach()
        self.fp = io.BufferedReader(_BoundedReader(raw, silence))


def bounded_pools(pools: Mapping[str, Any], silence: float) -> dict[str, Any]:
    """The same classes of urllib3's pools, by scheme, with answers that are bounded."""

    def bounded(pool: Any) -> Any:
        response = staticmethod(partial(_BoundedResponse, silence))
        connection = type(pool.ConnectionCls.__name__, (pool.ConnectionCls,), {"response_class": response})
        return type(pool.__name__, (pool,), {"ConnectionCls": connection})

    return {scheme: bounded(pool) for scheme, pool in pools.items()}


class BoundedAdapter(HTTPAdapter):
    """For a session of requests; without retries, which are the SDK's part."""

    def __init__(self, silence: float, **named: Any) -> None:
        self._silence = silence
        super().__init__(**named)

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, **named)
        self._bound(self.poolmanager)

    def proxy_manager_for(self, *arguments: Any, **named: Any) -> Any:
        known = set(self.proxy_manager.values())
        manager = super().proxy_manager_for(*arguments, **named)
        if manager not in known:
            self._bound(manager)
        return manager

    def _bound(self, manager: Any) -> None:
        # The dictionary is that of all managers: this one gets its own.
        manager.pool_classes_by_scheme = bounded_pools(manager.pool_classes_by_scheme, self._silence)
