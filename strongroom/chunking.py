"""Cuts files into chunks by content, the same way in the client and in the server (docs/format.md).

    for chunk in chunk_file(Path("model.safetensors"), "model.safetensors"):
        send(digest(chunk), chunk)

The cuts are FastCDC's (https://ieeexplore.ieee.org/document/9055082): an insertion moves the cuts near it and no
others. A safetensors file is cut also where each large tensor begins, so that a longer header moves none.
"""

import json
import mmap
import os
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3
from pyfastcdc import FastCDC

Buffer = bytes | bytearray | memoryview

MIN_CHUNK = 256 * 1024
AVG_CHUNK = 1024 * 1024
MAX_CHUNK = 4 * 1024 * 1024
DIGEST_BYTES = 32

# Of a safetensors file: a longer header forces no cuts. Enough for some 40,000 tensors, and parsed in 50 ms.
MAX_HEADER = 4 * 1024 * 1024
# Both hold the longest header, and chunks enough that scanning a window's last one twice costs little.
_STREAM_WINDOW = 8 * 1024 * 1024
_FILE_WINDOW = 16 * 1024 * 1024


def digest(chunk: Buffer) -> bytes:
    """The BLAKE3-256 digest of a chunk, 32 bytes. Computed without the interpreter's lock: threads run in parallel."""
    return blake3(chunk).digest()


class Chunker:
    """Cuts a stream, the same way however its input is sliced, in 8 MiB of memory.

    Args:
        path: the file's name. If it ends in `.safetensors`, a header is looked for; one that is hostile or broken
            is passed over, and the stream cut by content alone.
    """

    def __init__(self, path: str) -> None:
        self._cutter = _Cutter(path)
        self._window = memoryview(mmap.mmap(-1, _STREAM_WINDOW))  # a small file touches few of its pages
        self._filled = 0

    def feed(self, data: Buffer) -> Iterator[memoryview]:
        """Takes the next bytes and yields chunks; exhaust it. A chunk is valid until the next one is asked for."""
        rest = memoryview(data).cast("B")
        while rest:
            taken = min(len(rest), _STREAM_WINDOW - self._filled)
            self._window[self._filled : self._filled + taken] = rest[:taken]
            self._filled += taken
            rest = rest[taken:]
            if self._filled == _STREAM_WINDOW:
                yield from self._cut(last=False)

    def finish(self) -> Iterator[memoryview]:
        """Yields the chunks that are left, once all bytes were fed."""
        yield from self._cut(last=True)

    def _cut(self, *, last: bool) -> Iterator[memoryview]:
        done = 0
        for chunk in self._cutter.cut(self._window[: self._filled], last=last):
            done += len(chunk)
            yield chunk
        left = self._filled - done
        self._window[:left] = self._window[done : self._filled]
        self._filled = left


def chunk_file(path: Path, name: str) -> Iterator[memoryview]:
    """Cuts a file on disk into the chunks of `Chunker(name)`, with one copy less.

    Yields views of immutable bytes, which stay valid for as long as they are held; holding one holds up to 16 MiB.
    Raises OSError.
    """
    cutter = _Cutter(name)
    with path.open("rb", buffering=0) as file:
        offset = 0
        last = False
        while not last:
            window = _read_window(file.fileno(), offset)
            last = len(window) < _FILE_WINDOW
            # The provisional end of a window is read again with the next: cheaper than joining two buffers.
            for chunk in cutter.cut(memoryview(window), last=last):
                offset += len(chunk)
                yield chunk


def _read_window(descriptor: int, offset: int) -> bytes:
    """The next window; shorter only at the end of the file."""
    window = os.pread(descriptor, _FILE_WINDOW, offset)
    while len(window) < _FILE_WINDOW:  # a network file system may answer short of it
        more = os.pread(descriptor, _FILE_WINDOW - len(window), offset + len(window))
        if not more:
            break
        window += more
    return window


class _Cutter:
    """Where to cut: sees a stream as windows, each of which begins where the chunks of the one before ended."""

    def __init__(self, name: str) -> None:
        self._cdc = FastCDC(AVG_CHUNK, min_size=MIN_CHUNK, max_size=MAX_CHUNK, normalized_chunking=1, seed=0)
        self._forced: deque[int] | None = None if name.endswith(".safetensors") else deque()
        self._position = 0  # of the next chunk in the stream

    def cut(self, window: memoryview, *, last: bool) -> Iterator[memoryview]:
        """Yields the chunks at the beginning of the window that no later byte can change; all if it is the last.

        Windows but the last are longer than MAX_HEADER and MAX_CHUNK.
        """
        if self._forced is None:
            self._forced = deque(_tensor_starts(window))
        base = self._position
        while (start := self._position - base) < len(window):
            while self._forced and self._forced[0] <= self._position:
                self._forced.popleft()
            end, closed = len(window), last
            if self._forced and self._forced[0] - base <= end:
                end, closed = self._forced[0] - base, True
            for piece in self._cdc.cut_buf(window[start:end]):
                # A cut at the end of an open segment is there for want of bytes, unless the chunk is full.
                if not closed and start + piece.length == end and piece.length < MAX_CHUNK:
                    return
                self._position += piece.length
                yield window[start : start + piece.length]
                start += piece.length


def _tensor_starts(head: memoryview) -> list[int]:
    """Offsets in a safetensors file of tensors of 256 KiB and more; none if its header is not as the format says.

    The format (https://huggingface.co/docs/safetensors): the header's length N in 8 bytes, N bytes of JSON, the data.
    Nothing here is trusted with more than the choice of cuts: any cuts yield the file's own bytes.
    """
    if len(head) < 8:
        return []
    (length,) = struct.unpack_from("<Q", head)
    data = 8 + length
    if length > MAX_HEADER or data > len(head):
        return []
    try:
        header = json.loads(str(head[8:data], "utf-8"))
        spans = sorted((*entry["data_offsets"],) for name, entry in header.items() if name != "__metadata__")
        starts = []
        before = 0
        for begin, end in spans:
            if type(begin) is not int or type(end) is not int or not before <= begin <= end:
                return []
            if end - begin >= MIN_CHUNK:
                starts.append(data + begin)
            before = end
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return starts
