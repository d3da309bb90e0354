"""Cuts files into chunks by content, the same way in the client and in the server.

for chunk in chunk_file(Path("model.safetensors"), "model.safetensors"):
    send(digest(chunk), chunk)
"""

from collections.abc import Iterator
from pathlib import Path

Buffer = bytes | bytearray | memoryview

MIN_CHUNK = 256 * 1024
AVG_CHUNK = 1024 * 1024
MAX_CHUNK = 4 * 1024 * 1024
DIGEST_BYTES = 32


def digest(chunk: Buffer) -> bytes:
    """The BLAKE3-256 digest of a chunk, 32 bytes. Long chunks are hashed without the interpreter's lock."""
    raise NotImplementedError


class Chunker:
    """Cuts a stream, the same way however its input is sliced, in bounded memory.

    Args:
        path: the file's name; if it ends in `.safetensors`, chunks begin where large tensors begin.
    """

    def __init__(self, path: str) -> None:
        raise NotImplementedError

    def feed(self, data: Buffer) -> Iterator[memoryview]:
        """Takes the next bytes; yields whole chunks. A chunk is valid until the next one is asked for; exhaust the iterator."""
        raise NotImplementedError

    def finish(self) -> Iterator[memoryview]:
        """Yields what is left, after the last byte was fed."""
        raise NotImplementedError


def chunk_file(path: Path, name: str) -> Iterator[memoryview]:
    """Cuts a file on disk; the chunks are those of a `Chunker(name)`.

    Yields views of immutable bytes that stay valid for as long as they are held.
    """
    raise NotImplementedError
