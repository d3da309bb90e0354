"""A file that is not complete yet, under a temporary name beside its place."""

import errno
import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from strongroom.errors import LocalFileError

_BLOCK_BYTES = 4 << 20
# What O_DIRECT asks of offsets and lengths: no disk has larger sectors.
_ALIGNMENT = 4096


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
                partial = PartialFile(temporary, file)
                try:
                    yield partial
                finally:
                    # For the pull that goes on here. If the disk is full, that has been said already.
                    with suppress(OSError):
                        partial.flush()
                return


class PartialFile:
    """Grows at its end. `write` and `digest` take the same bytes in the same order, each in a thread of its own.

    Written past the page cache where the file system lets us (open(2), O_DIRECT): that costs a fraction of the time,
    and at the end nothing is left to be brought to the disk.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self._path = path
        self._file = file
        self._digest = hashlib.sha256()
        self._block = memoryview(mmap.mmap(-1, _BLOCK_BYTES))  # begins at a page, as O_DIRECT asks
        self._filled = 0
        self.size = 0

    @property
    def sha256(self) -> str:
        """Of all bytes so far, hexadecimal."""
        return self._digest.hexdigest()

    def resume(self, whole: int) -> int:
        """Takes what an earlier pull left of `whole` bytes; returns how many: whole blocks, or all."""
        there = os.fstat(self._file.fileno()).st_size
        usable = whole if there >= whole else there - there % _ALIGNMENT
        while self.size < usable and (data := self._file.read(min(_BLOCK_BYTES, usable - self.size))):
            self._digest.update(data)
            self.size += len(data)
        self._file.truncate(self.size)
        return self.size

    def clear(self) -> None:
        """Begins anew."""
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self._filled = self.size = 0

    def write(self, data: memoryview) -> None:
        """Appends the bytes."""
        while data:
            taken = min(len(data), _BLOCK_BYTES - self._filled)
            self._block[self._filled : self._filled + taken] = data[:taken]
            self._filled += taken
            self.size += taken
            data = data[taken:]
            if self._filled == _BLOCK_BYTES:
                self.flush()

    def digest(self, data: memoryview) -> None:
        """Counts the bytes in."""
        self._digest.update(data)

    def flush(self) -> None:
        """Hands what was written to the operating system. After a part of a block, nothing may follow."""
        left, self._filled = self._block[: self._filled], 0
        direct = _set_direct(self._file, len(left) % _ALIGNMENT == 0)
        while left:
            try:
                left = left[self._file.write(left) :]
            except OSError as error:
                # Some file systems refuse only now.
                if error.errno != errno.EINVAL or not direct:
                    raise
                direct = _set_direct(self._file, False)

    def become(self, path: Path) -> None:
        """Gives the complete file its place, replacing what is there. Durable once the folder is synced as well."""
        self.flush()
        os.fsync(self._file.fileno())
        self._path.replace(path)

    def remove(self) -> None:
        """Takes the file away."""
        self._path.unlink(missing_ok=True)


def _set_direct(file: Any, direct: bool) -> bool:
    """Chooses whether writes go past the page cache; says whether they do."""
    wanted = getattr(os, "O_DIRECT", 0) if direct else 0  # Linux has it
    flags = fcntl.fcntl(file, fcntl.F_GETFL) & ~getattr(os, "O_DIRECT", 0)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | wanted)
    except OSError:
        return False
    return wanted != 0


def _is_at(file: Any, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False
