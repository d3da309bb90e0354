"""The channel to a Strongroom: credential, deadlines, retries, errors."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import grpc

from strongroom import errors

DEFAULT_URL = "http://127.0.0.1:8080"
# Seconds a call may take that moves no files.
DEADLINE = 30.0
# Seconds for a call that may read or write gigabytes on the server before it answers.
LONG_DEADLINE = 3600.0

# Methods that can be repeated without harm: asking twice changes nothing more than asking once.
_IDEMPOTENT = {
    "strongroom.auth.v1.ApiKeyService": ("ListApiKeys", "ListPermissionSets", "GetApiKey", "RevokeApiKey"),
    "strongroom.auth.v1.InfoService": ("GetInfo", "GetHealth"),
    "strongroom.auth.v1.TokenService": ("CreateToken", "GetKeySet", "GetCaller"),
    "strongroom.models.v1.MaintenanceService": ("CollectGarbage",),
    "strongroom.models.v1.ModelService": ("ListModels", "ListVersions", "GetVersion", "VerifyVersion"),
    "strongroom.models.v1.WeightsService": ("CreateUpload", "HasChunks", "CommitUpload", "AbortUpload"),
    "strongroom.secrets.v1.SecretService": ("GetSecret", "ListSecrets", "ListSecretVersions"),
}
# gRPC draws each wait at random up to the backoff (https://github.com/grpc/proposal/blob/master/A6-client-retries.md).
_RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "0.2s",
    "maxBackoff": "3s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": service, "method": name} for service, names in _IDEMPOTENT.items() for name in names],
            "retryPolicy": _RETRY,
        }
    ]
}
_OPTIONS = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
]


class Connection:
    """A channel that presents a credential with every call and raises `StrongroomError`.

    Args:
        url: `http://HOST:PORT` or `https://HOST[:PORT]`.
        api_key: an API key; or
        token: an access token.
    """

    def __init__(self, url: str = DEFAULT_URL, *, api_key: str | None = None, token: str | None = None) -> None:
        self.channel = _channel(url)
        self.metadata: tuple[tuple[str, str], ...] = ()
        if api_key:
            self.metadata = (("x-api-key", _header_value(api_key, "API key")),)
        elif token:
            self.metadata = (("authorization", f"Bearer {_header_value(token, 'token')}"),)

    def call(self, method: Any, request: Any, *, deadline: float = DEADLINE) -> Any:
        """Calls a method with one answer."""
        try:
            return method(request, metadata=self.metadata, timeout=deadline)
        except grpc.RpcError as error:
            raise errors.from_rpc(error) from None

    def result(self, call: Any) -> Any:
        """Waits for the answer of a call that was begun."""
        try:
            return call.result()
        except grpc.RpcError as error:
            raise errors.from_rpc(error) from None

    def begin(self, method: Any, request: Any) -> Any:
        """Begins a call with a stream of answers."""
        return method(request, metadata=self.metadata, timeout=LONG_DEADLINE)

    def answers(self, call: Any) -> Iterator[Any]:
        """The answers of a call that was begun; leaving off ends the call."""
        try:
            yield from call
        except grpc.RpcError as error:
            raise errors.from_rpc(error) from None
        finally:
            call.cancel()

    def close(self) -> None:
        self.channel.close()


def _channel(url: str) -> grpc.Channel:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        # Neither a host nor a port can be made out.
        parts, port = urlsplit(""), 0
    if "@" in url:
        # Not repeated: in front of the @ a password may stand.
        message = "The address holds a user or a password. Give the key apart."
        raise errors.InvalidArgument(message, reason="URL_INVALID")
    host = parts.hostname or ""
    beyond = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not host or not port or beyond:
        raise errors.InvalidArgument(
            f"{url!r} is no address of a Strongroom. It looks like http://127.0.0.1:8080.", reason="URL_INVALID"
        )
    host = f"[{host}]" if ":" in host else host
    if parts.scheme == "https":
        return grpc.secure_channel(f"{host}:{port}", grpc.ssl_channel_credentials(), _OPTIONS)
    return grpc.insecure_channel(f"{host}:{port}", _OPTIONS)


def _header_value(value: str, what: str) -> str:
    stripped = value.strip()
    if not (stripped.isascii() and stripped.isprintable()):
        message = f"The {what} has characters that no {what} has. Copy it again."
        raise errors.Unauthenticated(message, reason="CREDENTIAL_INVALID")
    return stripped
