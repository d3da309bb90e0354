"""Pieces of packs on the local disk, so that what is read again is not fetched again.

What is kept is as encrypted as in the stores: neither keys nor salts are here. Any number of processes may share a
folder: an entry appears whole, by rename, and the sum of their sizes is kept in the file that they lock to add one.
"""

import fcntl
import hmac
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from blake3 import blake3

_LOCK = ".lock"
_NEW = ".new-"
_DIGEST_BYTES = 32
_USED = struct.Struct("<Q")
# What an eviction leaves, so that not every addition has to look for what is oldest.
_LEFT = 0.9
# Seconds after which an entry that is being written belongs to a process that is no more.
_ABANDONED = 3600.0

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    used_at: int


class PackCache:
    """Pieces of immutable objects, `capacity` bytes at most; the one unused for longest goes first.

    A disk that is full or fails costs time, never an answer.
    """

    def __init__(self, root: Path, capacity: int) -> None:
        self._root = root
        self._capacity = capacity
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked() as used:
            self._evict(used, capacity)

    def read(self, key: str, offset: int, length: int, fetch: Callable[[], bytes]) -> bytes:
        """The piece of the object, which `fetch` gets if it is not here."""
        path = self._place(key) / f"{offset}-{length}"
        data = _kept(path, key)
        if data is None:
            data = fetch()
            if len(data) == length and length * 4 <= self._capacity:
                try:
                    self._keep(path, key, data)
                except OSError as error:
                    _log.warning("the cache cannot be written", error=error.strerror)
        return data

    def drop(self, key: str) -> None:
        """Forgets an object."""
        shutil.rmtree(self._place(key), ignore_errors=True)

    def _place(self, key: str) -> Path:
        return self._root / key.rpartition("/")[2]

    def _keep(self, path: Path, key: str, data: bytes) -> None:
        new = self._root / f"{_NEW}{os.urandom(16).hex()}"
        size = _DIGEST_BYTES + len(data)
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.writelines((_digest(path.name, key, data), data))
            with self._locked() as used:
                if used.value + size > self._capacity:
                    self._evict(used, self._capacity - size)
                if not path.exists():
                    # Counted first: a crash in between leaves too high a sum, which the next eviction puts right.
                    used.value += size
                    used.write()
                    path.parent.mkdir(mode=0o700, exist_ok=True)
                    new.rename(path)
        finally:
            new.unlink(missing_ok=True)

    def _evict(self, used: "_Used", most: int) -> None:
        """Removes the oldest entries if all together have more than `most` bytes; counts what is left."""
        entries = sorted(self._entries(), key=lambda entry: entry.used_at)
        total = sum(entry.size for entry in entries)
        if total > most:
            for entry in entries:
                entry.path.unlink(missing_ok=True)
                with suppress(OSError):  # other pieces of the object are there still
                    entry.path.parent.rmdir()
                total -= entry.size
                if total <= most * _LEFT:
                    break
        used.value = total
        used.write()

    def _entries(self) -> Iterator[_Entry]:
        for folder in os.scandir(self._root):
            if folder.name.startswith(_NEW):
                with suppress(FileNotFoundError):
                    if time.time() - folder.stat().st_mtime > _ABANDONED:
                        Path(folder.path).unlink()
            elif folder.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    for file in os.scandir(folder):
                        found = file.stat(follow_symlinks=False)
                        yield _Entry(Path(file.path), found.st_size, found.st_mtime_ns)

    @contextmanager
    def _locked(self) -> Iterator["_Used"]:
        descriptor = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _Used(descriptor)
        finally:
            os.close(descriptor)  # and with it the lock


class _Used:
    """How many bytes the entries have, in the locked file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        stored = os.pread(descriptor, _USED.size, 0)
        self.value: int = _USED.unpack(stored)[0] if len(stored) == _USED.size else 0

    def write(self) -> None:
        os.pwrite(self._descriptor, _USED.pack(self.value), 0)


def _kept(path: Path, key: str) -> bytes | None:
    """The piece, and a note that it was used; None if it is not here or not what was put here."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        try:
            digest, data = file.read(_DIGEST_BYTES), file.read()
            os.utime(descriptor)
        except OSError:
            return None
    if hmac.compare_digest(digest, _digest(path.name, key, data)):
        return data
    path.unlink(missing_ok=True)
    return None


def _digest(piece: str, key: str, data: bytes) -> bytes:
    return blake3(f"{key}\0{piece}\0".encode()).update(data).digest()
