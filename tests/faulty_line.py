"""A line to an HTTP server on which planned things go wrong: a proxy on loopback that speaks HTTP, for any client."""

import http.client
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

# What a request may meet. `refuse` and `full` answer 503 and 507 and forward nothing; `silence` never answers; `cut`
# ends the answer in the middle of its body; `flip` changes the last byte of it; `lose` lets the request through and its
# answer not; `whole` asks for all of an object instead of a range, `unranged` answers a range as if it were all of it.
# `drip` sends the body, and `drip head` a header, a byte at a time without end; `flood` sends a body without end.
# `rewrite` answers what `rewriting` makes of the first answer, whatever is asked.
KINDS = ("refuse", "full", "silence", "cut", "flip", "lose", "whole", "unranged")
KINDS += ("drip", "drip head", "flood", "rewrite")
_DRIP = 0.05
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass
class Fault:
    """A kind, for how many requests, and which: those whose `METHOD path?query` the condition accepts."""

    kind: str
    times: int
    condition: Callable[[str], bool]


class FaultyLine:
    """Where it listens, with the server's path; what is planned; how many requests met a fault, and what all were."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._plan: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._over = threading.Event()
        line = self

        class Handler(_Handler):
            owner = line

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.met = 0
        self.sent = 0  # bytes of floods
        self.rewriting: Callable[[bytes, int], bytes] = lambda body, _number: body
        self._first: tuple[int, list[tuple[str, str]], bytes] | None = None
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self._server.server_port}{self._target.path}"

    def plan(self, kind: str, times: int = 1, when: Callable[[str], bool] = bool) -> None:
        """Lets the next requests that `when` accepts go wrong."""
        assert kind in KINDS
        self._plan.append(Fault(kind, times, when))

    def heal(self) -> None:
        """Forgets what is planned."""
        self._plan.clear()
        self._first = None

    def take(self, request: str) -> str:
        """The fault that a request meets, or nothing."""
        with self._lock:
            self.requests.append(request)
            for fault in self._plan:
                if fault.times > 0 and fault.condition(request):
                    fault.times -= 1
                    self.met += 1
                    return fault.kind
        return ""

    def forward(self, request: "_Handler", body: bytes, *, drop: str = "") -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(str(self._target.hostname), self._target.port, timeout=60)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in {*_HOP, drop}}
        try:
            connection.request(request.command, request.path, body, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            if request.command == "HEAD":
                kept.append(("Content-Length", answer.headers.get("Content-Length", "0")))
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def rewritten(self, request: "_Handler", body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        self._first = self._first or self.forward(request, body)
        status, headers, answer = self._first
        return status, headers, self.rewriting(answer, self.met)

    def wait_for_the_end(self, seconds: float | None = None) -> bool:
        return self._over.wait(seconds)

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyLine

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        return

    def _handle(self) -> None:
        body = self._body()
        fault = self.owner.take(f"{self.command} {self.path}")
        if fault in ("refuse", "full"):
            self._answer(503 if fault == "refuse" else 507, [], b"")
        elif fault == "silence":
            self.owner.wait_for_the_end()
            self.close_connection = True
        elif fault in ("drip", "drip head", "flood"):
            self._pour(*self.owner.forward(self, body), fault)
        elif fault == "rewrite":
            self._answer(*self.owner.rewritten(self, body))
        else:
            status, headers, answer = self.owner.forward(self, body, drop="range" if fault == "whole" else "")
            if fault == "lose":
                self.close_connection = True
                return
            if fault == "flip" and answer:
                answer = answer[:-1] + bytes([answer[-1] ^ 1])
            if fault == "unranged":
                status, headers = 200, [header for header in headers if header[0].lower() != "content-range"]
            self._answer(status, headers, answer, cut=fault == "cut")

    def _pour(self, status: int, headers: list[tuple[str, str]], body: bytes, how: str) -> None:
        """An answer that does not end, until the client has had enough of it."""
        self.close_connection = True
        self.send_response_only(status)
        for name, value in headers:
            if how != "flood" or name.lower() != "content-range":
                self.send_header(name, value)
        try:
            if how == "drip head":
                self._headers_buffer.append(b"x-more: ")
                self.flush_headers()
            else:
                self.send_header("Content-Length", str(len(body) if how == "drip" else 1 << 40))
                self.end_headers()
            piece = bytes(1 << 20) if how == "flood" else b"0"
            while not self.owner.wait_for_the_end(0 if how == "flood" else _DRIP):
                self.wfile.write(piece)
                self.owner.sent += len(piece)
        except OSError:
            return

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD" or not headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.wfile.flush()
        if cut:
            self.close_connection = True

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


@contextmanager
def faulty_line(target: str) -> Iterator[FaultyLine]:
    """A running FaultyLine."""
    line = FaultyLine(target)
    thread = threading.Thread(target=line.serve, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.close()
        thread.join()
