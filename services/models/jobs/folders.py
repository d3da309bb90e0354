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
    """Deletes it: what lies in a folder is moved up before that goes, so no path gets long.

    By descriptors: a process may still be at work in it for a moment after its service was killed, and what is a folder
    when it is listed may be a link elsewhere when it is emptied.
    """
    with suppress(OSError), _opened(str(folder)) as root:
        while names := _names(root):
            for name in names:
                _remove(name, root)
        folder.rmdir()


def _remove(name: str, root: int) -> None:
    try:
        os.unlink(name, dir_fd=root)
    except IsADirectoryError:
        with _opened(name, root) as folder:
            for inner in _names(folder):
                with suppress(NotADirectoryError), _opened(inner, folder):
                    pass  # to be moved, a folder has to be writable
                os.rename(inner, token_hex(16), src_dir_fd=folder, dst_dir_fd=root)
        os.rmdir(name, dir_fd=root)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


@contextmanager
def _opened(name: str, within: int | None = None) -> Iterator[int]:
    """A folder, which then can be looked into. Raises NotADirectoryError for all else, links too."""
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
    try:
        # It may be closed to us, and fchmod(2) does not take a descriptor of this kind.
        Path(f"/proc/self/fd/{place}").chmod(0o700)
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
    finally:
        os.close(place)
    try:
        yield folder
    finally:
        os.close(folder)
