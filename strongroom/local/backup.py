"""`strongroom admin backup`: all that an installation is, in one encrypted file, while it runs.

The databases are read as they were at one moment, then the weights of the store in the data directory, which never
change once they are there. What lies elsewhere stays there: stores in clouds, a root key in a key management system.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.exc import SQLAlchemyError

from strongroom.local import backup_format
from strongroom.local.backup_format import Lock
from strongroom.local.backup_tables import ORDER, Snapshot, snapshot
from strongroom.local.credentials import KMS, ROOT_KEY_FILE
from strongroom.local.errors import BackupError
from strongroom.local.layout import Layout

DATABASE_URL = "STRONGROOM_DATABASE_URL"
STORES = "STRONGROOM_STORES"
MANIFEST, FILES, TABLES = "manifest.json", "files", "tables"
# Marks of the index, which tell an old index from the one of these weights (services/models/index_identity.py).
MARKS = "index"


@dataclass(frozen=True)
class Options:
    """`weights` and `root_key`: whether they are to be in it."""

    data_dir: Path
    file: Path
    weights: bool = True
    root_key: bool = True


@dataclass
class Report:
    """What was backed up, or restored. `root_keys`: what a restored installation opens with."""

    tables: int = 0
    weights: int = 0
    weight_bytes: int = 0
    root_keys: tuple[str, ...] = ()
    has_root_key: bool = False


def database_url(environment: Mapping[str, str], layout: Layout) -> str:
    """Where the databases are, as for `strongroom up`."""
    return environment.get(DATABASE_URL) or f"sqlite:///{layout.databases / 'strongroom.db'}"


def backup(options: Options, environment: Mapping[str, str], lock: Lock, now: datetime, version: str) -> Report:
    """Makes a backup. Raises BackupError; then there is no file."""
    layout = Layout(options.data_dir.absolute())
    if not layout.root.is_dir():
        raise BackupError(f"There is no data directory {layout.root}.")
    if options.file.exists():
        raise BackupError(f"{options.file} is there already: choose another name.")
    with_weights = options.weights and not environment.get(STORES)
    maker = _Maker(layout, environment, options.root_key, with_weights)

    def produce(target: BinaryIO) -> None:
        # Before the databases, whose last entries they then do not contradict.
        small = dict(maker.small_files())
        with snapshot(database_url(environment, layout)) as taken:
            about = {"format": backup_format.FORMAT, "strongroom": version, "made_at": now.isoformat()}
            maker.write(target, about, small, taken)

    try:
        backup_format.write(options.file, lock, produce)
    except OSError as error:
        raise BackupError(f"The backup can't be written: {error.strerror or type(error).__name__}.") from None
    except SQLAlchemyError as error:
        raise BackupError(f"The database can't be read ({type(error).__name__}).") from None
    return maker.report


class _Maker:
    """Writes the archive."""

    def __init__(self, layout: Layout, environment: Mapping[str, str], root_key: bool, weights: bool) -> None:
        self.report = Report()
        self._layout = layout
        self._environment = environment
        self._with_root_key = root_key
        self._with_weights = weights

    def small_files(self) -> Iterator[tuple[str, bytes]]:
        """Keys, identities, certificates, heads of the audit log, marks of the index: by path in the data directory."""
        root = self._layout.root
        if self._with_root_key:
            yield from self._root_key_files()
        folders = [
            self._layout.identities,
            self._layout.pki,
            root / "audit",
            *([root / "weights" / MARKS] if self._with_weights else []),
        ]
        for folder in folders:
            for file in _files(folder):
                yield file.relative_to(root).as_posix(), file.read_bytes()
        if self._layout.admin_key.exists():
            yield self._layout.admin_key.name, self._layout.admin_key.read_bytes()

    def write(self, target: BinaryIO, about: Mapping[str, object], small: Mapping[str, bytes], taken: Snapshot) -> None:
        self.report.root_keys = tuple(taken.root_keys())
        manifest = {**about, "revisions": taken.revisions, "root_keys": self.report.root_keys}
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, MANIFEST, json.dumps(manifest).encode())
            for name, content in small.items():
                _add(archive, f"{FILES}/{name}", content)
            # What is looked at longest is looked at last.
            for service in reversed(ORDER):
                for number, (table, lines) in enumerate(taken.pieces(service)):
                    self.report.tables += 1
                    _add(archive, f"{TABLES}/{service}/{table}/{number:08d}", lines)
            if self._with_weights:
                self._add_weights(archive)

    def _add_weights(self, archive: tarfile.TarFile) -> None:
        weights = self._layout.root / "weights"
        for file in _files(weights):
            if file.relative_to(weights).parts[0] == MARKS:
                continue
            try:
                opened = file.open("rb")
            except FileNotFoundError:  # of a version that was deleted meanwhile
                continue
            with opened:
                entry = tarfile.TarInfo(f"{FILES}/{file.relative_to(self._layout.root).as_posix()}")
                entry.size = os.fstat(opened.fileno()).st_size
                archive.addfile(entry, opened)
            self.report.weights += 1
            self.report.weight_bytes += entry.size

    def _root_key_files(self) -> Iterator[tuple[str, bytes]]:
        """The file with the root key, and the configuration of others with those that are files beside it."""
        given = self._environment.get(ROOT_KEY_FILE)
        file = Path(given) if given else self._layout.root_key
        if file.exists():
            self.report.has_root_key = True
            yield self._layout.root_key.name, file.read_bytes()
        given = self._environment.get(KMS)
        kms = Path(given) if given else self._layout.kms
        if not kms.exists():
            return
        yield self._layout.kms.name, kms.read_bytes()
        from services.secrets.root_keys import configuration
        from services.shared.configuration import ConfigurationError

        try:
            keys = configuration.load(kms, file).root_keys
        except ConfigurationError as error:
            raise BackupError(f"The root keys can't be read: {error}.") from None
        root = self._layout.root.resolve()
        for name, key in keys.items():
            if isinstance(key, configuration.FileConfiguration) and name != configuration.FILE:
                path = key.path.resolve()
                if path.is_relative_to(root) and path.exists():
                    yield path.relative_to(root).as_posix(), path.read_bytes()


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, without those that somebody is still writing, in a stable order."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, BytesIO(content))
