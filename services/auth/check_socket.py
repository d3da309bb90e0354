"""The gateway's question over HTTP/1.1 on a unix socket: the way for a gateway on the same machine.

It is what `ext_authz` answers over gRPC, where the call costs more than the answer, and every request with an API key
waits for it. Only who may open the socket can ask: the user that Strongroom runs as.
"""

import math
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import httptools
import structlog

from services.auth.admission import Admitted, Attempt
from services.auth.ext_authz import CREDENTIAL_HEADER, SEVERAL_HEADER, Edge, Limited, Verdict, credential_of
from services.shared.channels import IDENTITY_HEADER
from services.shared.layers import REQUEST_ID_HEADER
from services.shared.status import foreseen

# What the gateway says of a request in headers, which it takes from every client.
METHOD_HEADER = "x-strongroom-method"
ADDRESS_HEADER = "x-strongroom-address"
# https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_authz_filter
_REMOVE = b"x-envoy-auth-headers-to-remove: x-api-key,authorization\r\n"

_BACKLOG = 256
_CHUNK = 65_536

_log = structlog.get_logger()


class CheckSocket:
    """Serves each connection of the gateway by a thread of its own: the gateway keeps as many as it has questions."""

    def __init__(self, path: Path, edge: Edge) -> None:
        self._path = path
        self._edge = edge
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()

    def start(self) -> None:
        """Listens, in place of whoever did before. Starting again is fine."""
        if self._listener is not None:
            return
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(mask)
        listener.listen(_BACKLOG)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="check socket", daemon=True).start()

    def close(self) -> None:
        """Ends the connections as well."""
        if self._listener is not None:
            self._path.unlink(missing_ok=True)
            for opened in (self._listener, *tuple(self._connections)):
                _shut(opened)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed
                return
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="check", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        questions = _Questions(lambda attempt: connection.sendall(self._answer(attempt)))
        with suppress(OSError, httptools.HttpParserError):
            while data := connection.recv(_CHUNK):
                questions.feed(data)
        self._connections.discard(connection)
        connection.close()

    def _answer(self, attempt: Attempt) -> bytes:
        try:
            return _response(self._edge.judge(attempt), attempt)
        except Exception as error:
            # The gateway fails closed: 503 for its client.
            if foreseen(error) is None:
                _log.exception("check failed", request_id=attempt.request_id)
            return _http(500)


class _Questions:
    """Calls `ask` with each request that has come as a whole."""

    def __init__(self, ask: Callable[[Attempt], None]) -> None:
        self._ask = ask
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url, self._headers = b"", {}

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode(errors="replace")

    def on_message_complete(self) -> None:
        headers = self._headers
        path = self._url.decode("latin-1").partition("?")[0]
        method = headers.get(METHOD_HEADER) or path
        several = SEVERAL_HEADER in headers
        attempt = Attempt(
            method=method,
            original_path="" if method == path else path,
            api_key="" if several else headers.get("x-api-key"),
            authorization="" if several else headers.get("authorization"),
            request_id=headers.get(REQUEST_ID_HEADER, ""),
            address=headers.get(ADDRESS_HEADER, ""),
        )
        self._ask(attempt)


def _response(verdict: Verdict, attempt: Attempt) -> bytes:
    if isinstance(verdict, Admitted):
        if not verdict.identity_token:
            return _http(200, _REMOVE)
        # Subjects of other issuers are in it, which may be any text.
        credential = quote(credential_of(verdict, attempt), safe=":/@#")
        said = f"{IDENTITY_HEADER}: {verdict.identity_token}\r\n{CREDENTIAL_HEADER}: {credential}\r\n"
        return _http(200, _REMOVE + said.encode())
    if isinstance(verdict, Limited):
        return _http(429, f"retry-after: {math.ceil(verdict.seconds)}\r\n".encode(), verdict.message)
    return _http(verdict.status, b"", verdict.message)


def _http(status: int, headers: bytes = b"", body: str = "") -> bytes:
    content = body.encode()
    return b"HTTP/1.1 %d \r\n%scontent-length: %d\r\n\r\n%s" % (status, headers, len(content), content)


def _shut(opened: socket.socket) -> None:
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
    opened.close()
