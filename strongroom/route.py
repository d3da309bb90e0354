"""The way of bulk streams: past the gateway where the service is this user's own and on this machine, else through it.

The service names a unix socket (`GetRoute`); TLS and the gateway guard the way between machines, and within one user's
processes there is nothing to guard. Whatever fails on the shorter way goes on through the gateway.
"""

import ipaddress
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc

from strongroom import errors
from strongroom.address import OPTIONS
from strongroom.models.v1 import weights_pb2, weights_pb2_grpc
from strongroom.retries import Repeat

if TYPE_CHECKING:
    from strongroom.connection import Connection
    from strongroom.credential import Metadata

SOCKET_NAME = "bulk.sock"
_IDENTITY_HEADER = "x-strongroom-identity"
# Seconds for which an identity is presented: it is good for 30 at least.
_FRESH_SECONDS = 20.0


class Route:
    """Begins the bulk streams of a connection. Several threads may share it.

    Args:
        direct: whether there may be a channel past the gateway.
    """

    def __init__(self, connection: "Connection", *, direct: bool = True) -> None:
        self._connection = connection
        self._direct = direct and _is_loopback(connection.url)
        self._asking = threading.Lock()
        self._asked_at = -_FRESH_SECONDS
        self._socket = ""
        self._channel: grpc.Channel | None = None
        self._identity = ""

    def begin(self, method: Callable[[grpc.Channel], Any], requests: Any, deadline: float) -> "Stream":
        """Begins a stream of `method`, made of the channel it is called on. Raises StrongroomError."""
        channel, metadata = self._way()
        call = method(channel or self._connection.channel)
        call = call.future if hasattr(call, "future") else call
        begun = call(requests, metadata=metadata, timeout=deadline)
        return Stream(begun, None if channel is None else self._abandon)

    def close(self) -> None:
        """Ends the channel past the gateway."""
        if self._channel is not None:
            self._channel.close()

    def _way(self) -> "tuple[grpc.Channel | None, Metadata]":
        with self._asking:
            if self._direct and time.monotonic() - self._asked_at >= _FRESH_SECONDS:
                self._ask()
            if not self._direct:
                return None, self._connection.metadata
            if not self._identity:
                return self._channel, self._connection.metadata
            return self._channel, ((_IDENTITY_HEADER, self._identity), *self._connection.presented)

    def _ask(self) -> None:
        stub = weights_pb2_grpc.WeightsServiceStub(self._connection.channel)
        try:
            route = self._connection.call(stub.GetRoute, weights_pb2.GetRouteRequest(), repeat=Repeat.SAFE)
        except errors.Unavailable:
            raise
        except errors.StrongroomError:  # one that has no such method
            self._direct = False
            return
        if not _is_ours(route.socket):
            self._direct = False
            return
        if self._channel is None or route.socket != self._socket:
            self.close()
            self._socket, self._channel = route.socket, grpc.insecure_channel(f"unix:{route.socket}", OPTIONS)
        self._identity, self._asked_at = route.identity, time.monotonic()

    def _abandon(self) -> None:
        self._direct = False


class Stream:
    """A bulk stream under way."""

    def __init__(self, call: Any, abandon: Callable[[], None] | None) -> None:
        self.call = call
        self._abandon = abandon

    def result(self) -> Any:
        """Waits for the one answer. Raises StrongroomError."""
        try:
            return self.call.result()
        except grpc.RpcError as error:
            raise self._translated(error) from None

    def answers(self) -> Iterator[Any]:
        """The answers; leaving off ends the call. Raises StrongroomError."""
        try:
            yield from self.call
        except grpc.RpcError as error:
            raise self._translated(error) from None
        finally:
            self.call.cancel()

    def _translated(self, error: grpc.RpcError) -> errors.StrongroomError:
        found = errors.from_rpc(error)
        if self._abandon is None or not isinstance(found, errors.Unavailable | errors.Unauthenticated):
            return found
        # Whatever it is, the gateway knows better; and who is not let in there hears it from there.
        self._abandon()
        return errors.Unavailable("The way past the gateway is closed.", reason="ROUTE_LOST")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ours(path: str) -> bool:
    """Whether a socket that a server names is one of this user's Strongroom, and of nobody and nothing else."""
    socket = Path(path)
    if not socket.is_absolute() or socket.name != SOCKET_NAME:
        return False
    try:
        at, folder = socket.lstat(), socket.parent.lstat()
    except (OSError, ValueError):
        return False
    mine = at.st_uid == folder.st_uid == os.geteuid()
    return mine and stat.S_ISSOCK(at.st_mode) and stat.S_ISDIR(folder.st_mode) and not folder.st_mode & 0o077
