"""A channel whose certificate may change while it is used: gRPC in Python has none.

https://github.com/grpc/proposal/blob/master/A29-xds-tls-security.md describes certificate providers; Python's
`ssl_channel_credentials` takes bytes.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

# Seconds for which calls on the channel before may go on: longer than any call between services takes.
_FAREWELL = 900.0


class RenewingChannel(grpc.Channel):
    """Makes each call on a channel with the certificate that is good now.

    Args:
        material: what the certificate is now; another object if it has changed.
        open_channel: makes a channel with it.
    """

    def __init__(
        self,
        material: Callable[[], object],
        open_channel: Callable[[Any], grpc.Channel],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._material = material
        self._open = open_channel
        self._clock = clock
        self._lock = threading.Lock()
        self._made_of = material()
        self._channel = open_channel(self._made_of)
        self._left: list[tuple[float, grpc.Channel]] = []

    def current(self) -> grpc.Channel:
        """The channel for a call that begins now."""
        made_of = self._material()
        with self._lock:
            if made_of is not self._made_of:
                self._left.append((self._clock() + _FAREWELL, self._channel))
                self._made_of, self._channel = made_of, self._open(made_of)
                self._close_left(self._clock())
            return self._channel

    def unary_unary(self, method: str, *serializers: Any, **options: Any) -> Any:
        return _Renewing(self, lambda channel: channel.unary_unary(method, *serializers, **options))

    def unary_stream(self, method: str, *serializers: Any, **options: Any) -> Any:
        return _Renewing(self, lambda channel: channel.unary_stream(method, *serializers, **options))

    def stream_unary(self, method: str, *serializers: Any, **options: Any) -> Any:
        return _Renewing(self, lambda channel: channel.stream_unary(method, *serializers, **options))

    def stream_stream(self, method: str, *serializers: Any, **options: Any) -> Any:
        return _Renewing(self, lambda channel: channel.stream_stream(method, *serializers, **options))

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        self.current().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        self.current().unsubscribe(callback)

    def close(self) -> None:
        with self._lock:
            self._close_left(float("inf"))
            self._channel.close()

    def _close_left(self, now: float) -> None:
        for until, channel in self._left:
            if until <= now:
                channel.close()
        self._left = [(until, channel) for until, channel in self._left if until > now]

    def __enter__(self) -> "RenewingChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Renewing:
    """A method of the channel of the moment."""

    def __init__(self, channel: RenewingChannel, bind: Callable[[grpc.Channel], Any]) -> None:
        self._renewing = channel
        self._bind = bind
        self._bound: tuple[grpc.Channel, Any] | None = None

    def _method(self) -> Any:
        channel = self._renewing.current()
        bound = self._bound
        if bound is None or bound[0] is not channel:
            # Two threads may both bind it, to the same.
            self._bound = bound = channel, self._bind(channel)
        return bound[1]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._method()(*arguments, **options)

    def with_call(self, *arguments: Any, **options: Any) -> Any:
        return self._method().with_call(*arguments, **options)

    def future(self, *arguments: Any, **options: Any) -> Any:
        return self._method().future(*arguments, **options)
