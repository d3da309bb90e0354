"""Where a Strongroom is, and how it is called there."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from strongroom.authorities import channel_credentials
from strongroom.errors import InvalidArgument

OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
]


@dataclass(frozen=True)
class Address:
    """`HOST:PORT`, and what proves the server to be the right one; None: without TLS."""

    target: str
    credentials: grpc.ChannelCredentials | None = field(repr=False)

    @classmethod
    def of(cls, url: str, ca_file: Path | str | None = None) -> "Address":
        """The address that a URL gives; `ca_file` as of `Connection`. Raises InvalidArgument, LocalFileError."""
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            # Neither a host nor a port can be made out.
            parts, port = urlsplit(""), 0
        if "@" in url:
            # Not repeated: in front of the @ a password may stand.
            message = "The address holds a user or a password. Give the key apart."
            raise InvalidArgument(message, reason="URL_INVALID")
        host = parts.hostname or ""
        beyond = parts.path.strip("/") or parts.query or parts.fragment
        if parts.scheme not in ("http", "https") or not host or not port or beyond:
            raise InvalidArgument(
                f"{url!r} is no address of a Strongroom. It looks like http://127.0.0.1:8080.", reason="URL_INVALID"
            )
        host = f"[{host}]" if ":" in host else host
        return cls(f"{host}:{port}", channel_credentials(ca_file) if parts.scheme == "https" else None)

    def channel(self) -> grpc.Channel:
        """A channel for threads."""
        if self.credentials is None:
            return grpc.insecure_channel(self.target, OPTIONS)
        return grpc.secure_channel(self.target, self.credentials, OPTIONS)

    def aio_channel(self) -> grpc.aio.Channel:
        """A channel for the tasks of the running event loop."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, OPTIONS)
        return grpc.aio.secure_channel(self.target, self.credentials, OPTIONS)
