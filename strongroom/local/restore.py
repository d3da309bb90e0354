"""`strongroom admin restore`: an installation out of a backup, where there is none.

Everything is made in a folder beside the data directory, which takes its place at the very end: a crash, a damaged
file or a wrong passphrase leave nothing but that folder, which the next attempt removes.
"""

import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from services.shared.database import sqlite_file
from strongroom.local import backup_format
from strongroom.local.backup import DATABASE_URL, FILES, MANIFEST, MARKS, TABLES, Report
from strongroom.local.backup_format import Key
from strongroom.local.backup_tables import ORDER, Loading, loading
from strongroom.local.errors import BackupError, StartError
from strongroom.local.layout import Layout

# Of a file in the data directory. Whoever has a recipient's public key makes a backup that opens: no name is trusted.
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}){0,7}")
# What is made here and not taken from a backup.
_OURS = ("db", "run", "logs")
# Of a manifest, and of a piece of a table.
_MOST_BYTES = 1 << 30
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Options:
    """The folder must be empty or not there."""

    data_dir: Path
    file: Path


def restore(options: Options, environment: Mapping[str, str], key: Key) -> Report:
    """Restores a backup. Raises BackupError."""
    target = options.data_dir.absolute()
    if not options.file.is_file():
        raise BackupError(f"There is no backup {options.file}.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BackupError(f"{target} is not empty: restore into a folder that is not there yet.")
    given = environment.get(DATABASE_URL, "")
    if given.startswith("sqlite") and any(sqlite_file(make_url(given), service).exists() for service in ORDER):
        raise BackupError(f"{DATABASE_URL} names a database that is there already.")
    try:
        with _staging(target) as layout:
            here = f"sqlite:///{layout.databases / 'strongroom.db'}"
            with loading(here if not given or given.startswith("sqlite") else given) as load:
                unpacking = _Unpacking(layout.root, load)
                backup_format.read(options.file, key, unpacking.consume)
                load.finish()
            if given.startswith("sqlite"):
                _move_databases(layout, given)
            shutil.rmtree(layout.run)
            _sync_folders(layout.root)
            layout.root.replace(target)
            _sync(target.parent)
    except OSError as error:
        raise BackupError(f"{target} can't be written: {error.strerror or type(error).__name__}.") from None
    except SQLAlchemyError as error:
        raise BackupError(f"The database can't be written ({type(error).__name__}).") from None
    return unpacking.report


@contextmanager
def _staging(target: Path) -> Iterator[Layout]:
    """A data directory of its own beside the target, for one restoration at a time; gone unless it took its place."""
    layout = Layout(target.with_name(f".{target.name}.restoring"))
    layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        layout.create()
        with layout.locked():
            for left in layout.root.iterdir():  # by a restoration that was killed
                if left != layout.run:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            layout.create()
            try:
                yield layout
            finally:
                shutil.rmtree(layout.root, ignore_errors=True)
    except StartError as error:  # another restoration, or a folder that everybody may write to
        raise BackupError(f"It can't be restored there now: {error}") from None


class _Unpacking:
    """Puts what an archive holds where it belongs."""

    def __init__(self, root: Path, load: Loading) -> None:
        self.report = Report()
        self._root = root
        self._load = load

    def consume(self, source: BinaryIO) -> None:
        """Reads the archive to its end. Raises BackupError."""
        try:
            with tarfile.open(fileobj=source, mode="r|") as archive:
                entries = iter(archive)
                self._begin(archive, next(entries, None))
                for entry in entries:
                    self._take(archive, entry)
        except tarfile.TarError:
            raise BackupError("What is in it is no backup of Strongroom.") from None

    def _begin(self, archive: tarfile.TarFile, entry: tarfile.TarInfo | None) -> None:
        content = _content(archive, entry) if entry is not None and entry.name == MANIFEST else b""
        try:
            manifest: dict[str, Any] = json.loads(content)
            made_as, revisions = manifest["format"], dict(manifest["revisions"])
            names = tuple(map(str, manifest["root_keys"]))
        except (ValueError, KeyError, TypeError):
            raise BackupError("What is in it is no backup of Strongroom.") from None
        if made_as != backup_format.FORMAT:
            raise BackupError("It was made by a later version of Strongroom: update.")
        self.report.root_keys = names
        self._load.prepare(revisions)

    def _take(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        kind, _, name = entry.name.partition("/")
        if not entry.isreg() or not _PATH.fullmatch(name):
            raise BackupError("It holds what no backup of Strongroom does.")
        if kind == TABLES and name.count("/") == 2:
            service, table, _ = name.split("/")
            self._load.add(service, table, _content(archive, entry))
            self.report.tables += 1
        elif kind == FILES and name.split("/")[0] not in _OURS:
            file = self._root / name
            for folder in reversed(file.relative_to(self._root).parents[:-1]):
                (self._root / folder).mkdir(mode=0o700, exist_ok=True)
            self._write(archive, entry, file)
            if name.startswith("weights/") and not name.startswith(f"weights/{MARKS}/"):
                self.report.weights += 1
                self.report.weight_bytes += entry.size
            self.report.has_root_key |= name == "root.key"
        else:
            raise BackupError("It holds what no backup of Strongroom does.")

    @staticmethod
    def _write(archive: tarfile.TarFile, entry: tarfile.TarInfo, file: Path) -> None:
        content = archive.extractfile(entry)
        assert content is not None
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise BackupError("It holds a file twice.") from None
        with os.fdopen(descriptor, "wb") as output:
            shutil.copyfileobj(content, output, _COPY_BYTES)
            output.flush()
            os.fsync(output.fileno())


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(entry)
    if content is None or entry.size > _MOST_BYTES:
        raise BackupError("It holds what no backup of Strongroom does.")
    return content.read()


def _move_databases(layout: Layout, url: str) -> None:
    """To where STRONGROOM_DATABASE_URL says."""
    here = make_url(f"sqlite:///{layout.databases / 'strongroom.db'}")
    for service in ORDER:
        target = sqlite_file(make_url(url), service)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.move(sqlite_file(here, service), target)


def _sync_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        _sync(Path(folder))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
