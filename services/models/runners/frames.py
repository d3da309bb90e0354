"""What a job's process and the service say to each other: frames over two pipes.

A frame is one byte that says what it is, the length of its body in eight bytes, and the body. Whatever comes out of the
process may have been written by anybody's code: lengths are bounded, and nothing is unpickled.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

# To the process: what to do (JSON), then the model: DATA in pieces, then END; then likewise each range that it wants.
TASK, DATA, END = b"T", b"D", b"E"
# From it: the file that it makes, as DATA; which range of a table it wants (JSON); how far it is (JSON); and last what
# came of it (JSON).
WANTED, PROGRESS, RESULT = b"W", b"P", b"R"

HEADER = struct.Struct(">cQ")
# Bytes of a body: of a table as JSON, and of a piece of a file; and of a range.
MAX_JSON = 256 << 20
PIECE = 1 << 20
MAX_RANGE = 8 << 20


class FrameBroken(Exception):
    """What came is no frame, or none that may come there."""


def write(stream: BinaryIO, kind: bytes, body: bytes | memoryview) -> None:
    """Writes a frame. Raises BrokenPipeError if nobody reads any more."""
    stream.write(HEADER.pack(kind, len(body)))
    stream.write(body)


def write_json(stream: BinaryIO, kind: bytes, value: Mapping[str, Any]) -> None:
    write(stream, kind, json.dumps(value, separators=(",", ":")).encode())
    stream.flush()


def read(stream: BinaryIO) -> tuple[bytes, bytes]:
    """The next frame, kind and body; END where the stream ends. Raises FrameBroken."""
    head = stream.read(HEADER.size)
    if not head:
        return END, b""
    if len(head) < HEADER.size:
        raise FrameBroken("cut short")
    kind, length = HEADER.unpack(head)
    if length > (PIECE if kind == DATA else MAX_JSON):
        raise FrameBroken("too long")
    body = stream.read(length)
    if len(body) < length:
        raise FrameBroken("cut short")
    return kind, body


def parse_json(body: bytes) -> dict[str, Any]:
    """Raises FrameBroken."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise FrameBroken("no JSON") from None
    if not isinstance(value, dict):
        raise FrameBroken("no object")
    return value
