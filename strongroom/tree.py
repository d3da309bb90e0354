"""Files as they are pushed and pulled: which, under what names, and where to."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from strongroom.errors import DataLoss, LocalFileError

# Bytes that the name of a file in a version may have.
MAX_NAME = 1024


@dataclass(frozen=True)
class LocalFile:
    """A file to push. `size` and `modified_ns` tell afterwards whether it changed meanwhile."""

    path: Path
    name: str
    size: int
    modified_ns: int

    def refuse_change(self) -> None:
        """Raises LocalFileError if it is not the file any more that the walk found."""
        try:
            status = self.path.stat()
        except OSError:
            status = None
        if status is None or (status.st_size, status.st_mtime_ns) != (self.size, self.modified_ns):
            message = f"{self.path} changed while it was pushed. Push again once nobody writes to it."
            raise LocalFileError(message, reason="SOURCE_CHANGED")


def walk(source: Path) -> list[LocalFile]:
    """The file, or the files below the folder, in order of their names. Raises LocalFileError.

    Links to files are followed if what they lead to lies inside the folder; links out of it and links to folders are
    refused, as they are rarely meant. Empty folders are left out.
    """
    try:
        if not source.is_dir():
            return [_local_file(source, source.name)]
        root = source.resolve(strict=True)
        files = [_local_file(path, path.relative_to(source).as_posix()) for path in _below(source, root)]
    except FileNotFoundError as error:
        raise LocalFileError(f"{error.filename} does not exist.", reason="SOURCE_MISSING") from None
    except OSError as error:
        message = f"{error.filename} can't be read: {error.strerror}."
        raise LocalFileError(message, reason="SOURCE_UNREADABLE") from None
    if not files:
        raise LocalFileError(f"{source} holds no files: there is nothing to push.", reason="SOURCE_EMPTY")
    return sorted(files, key=lambda file: file.name)


def _below(folder: Path, root: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.is_symlink() and not path.resolve().is_relative_to(root):
            message = f"{path} links to a place outside of the folder. Copy the file there, or push it by itself."
            raise LocalFileError(message, reason="LINK_LEADS_OUT")
        if entry.is_dir(follow_symlinks=False):
            yield from _below(path, root)
        elif entry.is_dir():
            message = f"{path} links to a folder. Push the folder itself."
            raise LocalFileError(message, reason="LINK_TO_FOLDER")
        else:
            yield path


def _local_file(path: Path, name: str) -> LocalFile:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        message = f"The name of {str(path)!r} is not valid Unicode. Rename it."
        raise LocalFileError(message, reason="NAME_INVALID") from None
    if length > MAX_NAME:
        message = f"{path} has a path of more than {MAX_NAME} bytes below the folder. Shorten it."
        raise LocalFileError(message, reason="NAME_INVALID")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise LocalFileError(f"{path} is neither a file nor a folder.", reason="SOURCE_NOT_A_FILE")
    return LocalFile(path, name, status.st_size, status.st_mtime_ns)


def targets(names: Sequence[str], destination: str | Path) -> dict[str, Path]:
    """Where each file goes: a single one to `destination`, unless that is a folder or ends in `/`; else below it.

    Raises DataLoss for a name that leads out of the destination: no honest server stores one; and LocalFileError if
    something stands in the way there.
    """
    if not str(destination):
        raise LocalFileError("The destination has no name. Name a file or a folder.", reason="TARGET_MISSING")
    folder = Path(destination)
    try:
        if len(names) == 1 and not (str(destination).endswith("/") or folder.is_dir()):
            return {names[0]: _replaceable(folder)}
        if folder.exists() and not folder.is_dir():
            message = f"{folder} is not a folder, and {len(names)} files need one. Name another place."
            raise LocalFileError(message, reason="TARGET_NOT_A_FOLDER")
        return {name: _replaceable(_inside(folder, name)) for name in names}
    except OSError as error:
        message = f"{error.filename} can't be written: {error.strerror}."
        raise LocalFileError(message, reason="TARGET_UNWRITABLE") from None


def _replaceable(path: Path) -> Path:
    """The path, unless a folder, a pipe or a device is there: a rename would put a file in its place."""
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise LocalFileError(f"{path} is {what} and is not replaced. Name another place.", reason="TARGET_NOT_A_FILE")
    return path


def _inside(folder: Path, name: str) -> Path:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise DataLoss(f"The server names a file {name!r}, which leads out of the destination.", reason="PATH_UNSAFE")
    path = folder.joinpath(*parts)
    for parent in (path, *path.parents):
        if parent == folder:
            break
        if parent.is_symlink():
            message = f"{parent} is a link: a file written through it would land elsewhere. Remove it."
            raise LocalFileError(message, reason="LINK_IN_THE_WAY")
    return path
