"""A WriteChunks stream: whole chunks, packed into frames."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from queue import Full, Queue

from strongroom import bulk
from strongroom.connection import LONG_DEADLINE, Connection
from strongroom.models.v1 import weights_pb2
from strongroom.route import Stream

# Bytes a message of the data plane carries: the size at which gRPC moved most. A single chunk may be longer.
FRAME_BYTES = 2 << 20
# Seconds that gRPC's thread has to end.
_PATIENCE = 5.0


class Sender:
    """Opens the stream with the first chunk and feeds it from a bounded queue of frames.

    Every method raises StrongroomError if the server ended the stream.
    """

    def __init__(self, connection: Connection, header: weights_pb2.WriteChunksHeader) -> None:
        self._connection = connection
        self._header = bulk.encode_header(header)
        self._frames: Queue[bytes | None] = Queue(2)
        self._chunks: list[memoryview] = []
        self._size = 0
        self._stream: Stream | None = None
        self._thread: threading.Thread | None = None

    def put(self, chunk: memoryview) -> None:
        """Sends a chunk, with others in one frame."""
        if self._size + len(chunk) > FRAME_BYTES:
            self._flush()
        self._chunks.append(chunk)
        self._size += len(chunk)

    def finish(self) -> None:
        """Returns once everything that was put is durable on the server."""
        self._flush()
        if self._stream is not None:
            self._hand_over(self._stream, None)
            self._stream.result()

    def _flush(self) -> None:
        if not self._chunks:
            return
        if self._stream is None:
            self._stream = self._connection.route.begin(bulk.write_chunks, self._requests(), LONG_DEADLINE)
        self._hand_over(self._stream, bulk.encode_frame(self._chunks))
        self._chunks, self._size = [], 0

    def _hand_over(self, stream: Stream, frame: bytes | None) -> None:
        while not stream.call.done():
            try:
                self._frames.put(frame, timeout=0.2)
            except Full:
                continue
            return
        # The server ended the stream before we did: its error says why.
        stream.result()

    def _requests(self) -> Iterator[bytes]:
        # Called in a thread of gRPC's.
        self._thread = threading.current_thread()
        yield self._header
        while (frame := self._frames.get()) is not None:
            yield frame

    def __enter__(self) -> "Sender":
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None and not self._stream.call.done():
            self._stream.call.cancel()
        # gRPC's thread must be over before the interpreter ends: caught inside of gRPC, it would never let it end.
        # Not waited for forever: Ctrl-C at the wrong moment leaves a lock of gRPC's taken, and then it can't end.
        deadline = time.monotonic() + _PATIENCE
        while self._thread is not None and self._thread.is_alive() and time.monotonic() < deadline:
            with suppress(Full):
                self._frames.put_nowait(None)
            self._thread.join(0.1)
