"""Jobs' folders: how much is in one, and their removal.

What lies there anybody's code has made: deeper than a path is long, or closed to whoever comes later.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from services.models.jobs.links import FolderFull

_PREFIX = "strongroom-job-"

# Bytes that an entry counts for at least, empty files and folders too: they take room, and time to be looked at.
_LEAST = 16 << 10


@contextmanager
def made() -> Iterator[Path]:
    """A folder of a job's own, locked as long as the block runs, and gone with it."""
    folder, lock = _locked()
    try:
        yield folder
    finally:
        remove(folder)
        os.close(lock)


def _locked() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with suppress(FileNotFoundError):
            lock = _descriptor(folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                return folder, lock
            # A service that started in between took it for one that was left.
            os.close(lock)


def sweep() -> None:
    """Removes the folders of services that were killed: nobody has their locks."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = _descriptor(folder)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(folder)
            finally:
                os.close(lock)


def _descriptor(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def check(folder: Path, most: int) -> None:
    """Raises FolderFull if there are more than `most` bytes, or something that can't be counted."""
    total, waiting = 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    total += _size(entry)
                    if total > most:
                        raise FolderFull
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # it is changing
        except OSError:
            raise FolderFull from None


def _size(entry: os.DirEntry[str]) -> int:
    return max(_LEAST, entry.stat(follow_symlinks=False).st_blocks * 512)


def remove(folder: Path) -> None:
    """Deletes it once its process is gone: what lies in a folder is moved up before that goes, so no path gets long."""
    with suppress(OSError):
        while entries := list(os.scandir(folder)):
            for entry in entries:
                if _opened(entry):
                    for inner in list(os.scandir(entry)):
                        _opened(inner)  # to be moved, it has to be writable
                        Path(inner).rename(folder / token_hex(16))
                    Path(entry).rmdir()
                else:
                    Path(entry).unlink()
        folder.rmdir()


def _opened(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, which then can be looked into."""
    folder = entry.is_dir(follow_symlinks=False)
    if folder:
        Path(entry).chmod(0o700)
    return folder
