"""Files as they are pushed and pulled: which, under what names, and where to."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from strongroom.errors import DataLoss, LocalFileError


@dataclass(frozen=True)
class LocalFile:
    """A file to push. `size` and `modified_ns` tell afterwards whether it changed meanwhile."""

    path: Path
    name: str
    size: int
    modified_ns: int

    def changed(self) -> bool:
        """Whether it is not the file any more that the walk found."""
        status = self.path.stat()
        return (status.st_size, status.st_mtime_ns) != (self.size, self.modified_ns)


def walk(source: Path) -> list[LocalFile]:
    """The file, or the files below the folder, in order of their names. Raises LocalFileError.

    Links are followed if what they lead to lies inside the folder; a link out of it is refused, as it is rarely meant.
    """
    if not source.exists():
        raise LocalFileError(f"{source} does not exist.", reason="SOURCE_MISSING")
    if source.is_file():
        return [_local_file(source, source.name)]
    root = source.resolve()
    files = [_local_file(path, path.relative_to(source).as_posix()) for path in _below(source, root)]
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
        status = path.stat()
        name.encode()
    except FileNotFoundError:
        raise LocalFileError(f"{path} is a link that leads nowhere.", reason="SOURCE_MISSING") from None
    except UnicodeEncodeError:
        raise LocalFileError(f"The name of {path!r} is not valid Unicode. Rename it.", reason="NAME_INVALID") from None
    if not stat.S_ISREG(status.st_mode):
        raise LocalFileError(f"{path} is neither a file nor a folder.", reason="SOURCE_NOT_A_FILE")
    return LocalFile(path, name, status.st_size, status.st_mtime_ns)


def targets(names: Sequence[str], destination: str | Path) -> dict[str, Path]:
    """Where each file goes: a single one to `destination`, unless that is a folder or ends in `/`; else below it.

    Raises DataLoss for a name that leads out of the destination: no honest server stores one.
    """
    folder = Path(destination)
    if len(names) == 1 and not (str(destination).endswith("/") or folder.is_dir()):
        return {names[0]: folder}
    return {name: _inside(folder, name) for name in names}


def _inside(folder: Path, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise DataLoss(f"The server names a file {name!r}, which leads out of the destination.", reason="PATH_UNSAFE")
    path = folder.joinpath(*parts)
    for parent in (path, *path.parents):
        if parent == folder:
            break
        if parent.is_symlink():
            message = f"{parent} is a link: a file written through it would land elsewhere. Remove it."
            raise LocalFileError(message, reason="LINK_IN_THE_WAY")
    return path
