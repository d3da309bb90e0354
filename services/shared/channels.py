"""Channels from one service to another."""

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from services.shared import traces
from services.shared.certificates import secure_channel
from services.shared.renewing_channel import RenewingChannel
from services.shared.tokens import ServiceIdentity
from strongroom.addresses import target

IDENTITY_HEADER = "x-strongroom-identity"

# Seconds that a call to another service may take, unless it says otherwise.
DEADLINE = 10.0
# A token lives a minute; it is replaced while it still has a good part of that.
_TOKEN_SECONDS = 40.0

_CONFIGURATION = {
    # To replicas in turn, of those that there is a connection to.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def service_channel(address: str, audience: str, identity: ServiceIdentity) -> grpc.Channel:
    """A channel to the replicas of the service `audience` that proves the caller's identity. Calls end after ten
    seconds by default. Raises ValueError for an address that can't be used.
    """
    options: list[tuple[str, object]] = [
        ("grpc.service_config", json.dumps(_CONFIGURATION)),
        ("grpc.max_receive_message_length", 64 << 20),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # Less than the retries above take together: who calls a service that is back finds it.
        ("grpc.max_reconnect_backoff_ms", 300),
        # A replica that stands still or is cut off is left while a call still has time to ask another one.
        ("grpc.keepalive_time_ms", 2000),
        ("grpc.keepalive_timeout_ms", 2000),
        # Of a ping that another one waits for; while it waits, the library sends none of those above.
        ("grpc.http2.ping_timeout_ms", 2000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A name is looked up anew when a replica is gone: another one may have taken its place.
        ("grpc.dns_min_time_between_resolutions_ms", 2000),
    ]
    certificates = identity.certificates
    if certificates is None:
        channel = grpc.insecure_channel(target(address), options)
    else:
        connect = partial(secure_channel, target(address), audience, options=options)
        channel = RenewingChannel(certificates.current, connect)
    return grpc.intercept_channel(channel, _Identify(audience, identity))


class _CallDetails(grpc.ClientCallDetails):
    def __init__(self, original: Any, metadata: tuple[tuple[str, str], ...], timeout: float) -> None:
        self.method = original.method
        self.timeout = timeout
        self.metadata = metadata
        self.credentials = original.credentials
        self.wait_for_ready = original.wait_for_ready
        self.compression = original.compression


class _Identify(grpc.UnaryUnaryClientInterceptor):
    """Adds a service token and a deadline. Call credentials would need TLS, which loopback does without."""

    def __init__(self, audience: str, identity: ServiceIdentity) -> None:
        self._audience = audience
        self._identity = identity
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0

    def intercept_unary_unary(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        timeout = DEADLINE if details.timeout is None else details.timeout
        with traces.calling(details.method) as (trace, ended):
            metadata = (*(details.metadata or ()), (IDENTITY_HEADER, self._current_token()), *trace)
            answer = continuation(_CallDetails(details, metadata, timeout), request)
            answer.add_done_callback(ended)
            return answer

    def _current_token(self) -> str:
        with self._lock:
            if time.monotonic() >= self._renew_at:
                self._token = self._identity.token(self._audience)
                self._renew_at = time.monotonic() + _TOKEN_SECONDS
            return self._token
