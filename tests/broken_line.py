"""A line between client and gateway that breaks: a TCP relay that cuts connections after so many bytes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE = 64 * 1024


class BrokenLine:
    """Relays to `target` (host:port). Each number of `cuts` ends one connection after about that many bytes.

    `carried` and `broken` count bytes and cuts; while `down` is set, every connection breaks.
    """

    def __init__(self, target: str, cuts: list[int]) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._cuts = cuts
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.down = False
        self.carried = 0
        self.broken = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.down:
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                with self._lock:
                    left = [self._cuts.pop(0)] if self._cuts else []
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._relay, args=(source, sink, left), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, left: list[int]) -> None:
        with suppress(OSError):
            while (data := source.recv(_PIECE)) and not self.down:
                with self._lock:
                    self.carried += len(data)
                    if left:
                        left[0] -= len(data)
                        if left[0] < 0:
                            self.broken += 1
                            left.clear()
                            break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # A thread in accept() is not woken by close() alone.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def broken_line(target: str, *cuts: int) -> Iterator[BrokenLine]:
    """A running BrokenLine."""
    line = BrokenLine(target, list(cuts))
    thread = threading.Thread(target=line.serve, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.close()
        thread.join()
