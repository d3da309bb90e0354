"""Jobs' folders: how much is in one, and their removal.

What lies there anybody's code has made: deeper than a path is long, or closed to whoever comes later.
"""

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from services.models.jobs.links import FolderFull

# Bytes that an entry counts for at least, empty files and folders too: they take room, and time to be looked at.
_LEAST = 16 << 10


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
