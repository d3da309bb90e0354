"""What `strongroom up` asks its own gateway, as any client would."""

import http.client
import json
import socket
import ssl
from collections.abc import Collection
from dataclasses import dataclass

from strongroom.local.ports import reachable


@dataclass(frozen=True)
class Edge:
    """Where the gateway listens. With TLS, `certificates` (DER) are what it may show: it is known by them and by no
    authority, for its certificate may be for a name that leads elsewhere from here.
    """

    host: str
    port: int
    certificates: Collection[bytes] | None = None


class _KnownConnection(http.client.HTTPConnection):
    """Speaks TLS with whoever shows one of the certificates, and sends nobody else a byte of the request."""

    def __init__(self, edge: Edge, timeout: float) -> None:
        super().__init__(reachable(edge.host), edge.port, timeout=timeout)
        self._known = edge.certificates or ()

    def connect(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # what is asked of it stands below
        opened = context.wrap_socket(socket.create_connection((self.host, self.port), self.timeout))
        if opened.getpeercert(binary_form=True) not in self._known:
            opened.close()
            raise ConnectionError("another certificate")
        self.sock = opened


def health(edge: Edge) -> tuple[int, str]:
    """Status of GET /health, and what it says is missing; 0 without an answer."""
    status, body = _get(edge, "/health", {})
    try:
        return status, str(json.loads(body).get("detail", ""))
    except ValueError:
        return 0, "The gateway does not answer."


def is_refused(edge: Edge, api_key: str) -> bool:
    """Whether the gateway answers, and says that the key is none."""
    return _get(edge, "/api/v1/caller", {"X-API-Key": api_key})[0] == http.client.UNAUTHORIZED


def _get(edge: Edge, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Status and body; 0 without an answer."""
    connection: http.client.HTTPConnection
    if edge.certificates is None:
        connection = http.client.HTTPConnection(reachable(edge.host), edge.port, timeout=2)
    else:
        connection = _KnownConnection(edge, timeout=2)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException, ValueError):
        return 0, b""
    finally:
        connection.close()
