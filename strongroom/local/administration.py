"""Envoy's administration over its socket: how it is told to drain, and what it has counted."""

import http.client
import socket
from pathlib import Path


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Admin:
    """One gateway's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start_draining(self) -> None:
        """Asks clients to go elsewhere with their next request. Raises OSError if Envoy does not answer."""
        self._request("POST", "/healthcheck/fail")
        self._request("POST", "/drain_listeners?graceful")

    def active_requests(self) -> int:
        """How many requests are being answered. Raises OSError if Envoy does not answer."""
        text = self._request("GET", "/stats?filter=^http\\.public\\.downstream_rq_active$")
        return int(text.partition(":")[2] or 0)

    def unhealthy(self) -> set[str]:
        """The replicas, as host:port, that get no requests. Raises OSError if Envoy does not answer."""
        lines = (line.split("::") for line in self._request("GET", "/clusters").splitlines())
        return {
            fields[1] for fields in lines if len(fields) == 4 and fields[2] == "health_flags" and fields[3] != "healthy"
        }

    def _request(self, verb: str, path: str) -> str:
        connection = _UnixConnection(self._path, timeout=2)
        try:
            connection.request(verb, path)
            return connection.getresponse().read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()
