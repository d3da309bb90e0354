"""A file that is not complete yet, under a temporary name beside its place."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from strongroom.errors import LocalFileError

_READ_BYTES = 4 << 20
# Bytes written between two requests to bring them to the disk: then little is left to wait for at the end.
_SYNC_BYTES = 64 << 20


def temporary_path(path: Path, sha256: str) -> Path:
    """Named by what will be in it, so that what another version left is never continued."""
    name = hashlib.sha256(f"{path.name}\0{sha256}".encode(errors="surrogateescape")).hexdigest()
    return path.with_name(f".strongroom-{name[:32]}.part")


@contextmanager
def opened(path: Path, sha256: str) -> Iterator["PartialFile"]:
    """The partial file for this place and content, new or as an earlier pull left it; nobody else's meanwhile.

    Raises LocalFileError with reason PULL_RUNNING while another process has it, and OSError.
    """
    temporary = temporary_path(path, sha256)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        with open(os.open(temporary, flags, 0o666), "r+b", buffering=0) as file:  # noqa: PTH123 - the flags matter
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"{path} is being pulled by another process. Wait for it, or pull to another place."
                raise LocalFileError(message, reason="PULL_RUNNING") from None
            # Until the lock was ours, another pull may have renamed the file: then this is no temporary file any more.
            if _is_at(file, temporary):
                yield PartialFile(temporary, file)
                return


class PartialFile:
    """Grows at its end. `write` and `digest` take the same bytes in the same order, each in a thread of its own."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path = path
        self._file = file
        self._digest = hashlib.sha256()
        self._unsynced = 0
        self.size = 0

    @property
    def sha256(self) -> str:
        """Of all bytes so far, hexadecimal."""
        return self._digest.hexdigest()

    def resume(self, most: int) -> int:
        """Takes what an earlier pull left, up to `most` bytes; returns how many."""
        while self.size < most and (data := self._file.read(min(_READ_BYTES, most - self.size))):
            self._digest.update(data)
            self.size += len(data)
        self._file.truncate(self.size)
        return self.size

    def clear(self) -> None:
        """Begins anew."""
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: memoryview) -> None:
        """Appends the bytes."""
        self._unsynced += len(data)
        while data:
            written = self._file.write(data)
            self.size += written
            data = data[written:]
        if self._unsynced >= _SYNC_BYTES:
            os.fdatasync(self._file.fileno())
            self._unsynced = 0

    def digest(self, data: memoryview) -> None:
        """Counts the bytes in."""
        self._digest.update(data)

    def become(self, path: Path) -> None:
        """Gives the complete file its place, replacing what is there. Durable once the folder is synced as well."""
        os.fsync(self._file.fileno())
        self._path.replace(path)

    def remove(self) -> None:
        """Takes the file away."""
        self._path.unlink(missing_ok=True)


def _is_at(file: Any, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False
