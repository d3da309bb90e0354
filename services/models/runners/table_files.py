"""Files as a job's process sees them: ranges that it asks the service for, and bytes that it gives back."""

import io
from typing import Any, BinaryIO

from services.models.runners import frames


class RangeFile(io.RawIOBase):
    """A file of the service's that is read by ranges, each decrypted and verified there."""

    def __init__(self, name: str, size: int, source: BinaryIO, answers: BinaryIO) -> None:
        self._name = name
        self._size = size
        self._source = source
        self._answers = answers
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """All that was asked for: Arrow takes fewer bytes for the file's end."""
        end = self._size if size < 0 else min(self._size, self._at + size)
        whole = bytearray()
        while self._at < end:
            length = min(end - self._at, frames.MAX_RANGE)
            wanted = {"table": self._name, "offset": self._at, "length": length}
            frames.write_json(self._answers, frames.WANTED, wanted)
            self._at += length
            while (frame := frames.read(self._source))[0] == frames.DATA:
                whole += frame[1]
        return bytes(whole)


class AnswerFile(io.RawIOBase):
    """The file that a job makes: what is written goes to the service at once."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        """Writes bytes, or what has as much as a buffer."""
        whole = memoryview(data).cast("B")
        for start in range(0, len(whole), frames.PIECE):
            frames.write(self._answers, frames.DATA, whole[start : start + frames.PIECE])
        self._at += len(whole)
        return len(whole)
