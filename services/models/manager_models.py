"""Models of a manager by their paths: uploaded, loaded, verified."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from services.models import manager_paths
from services.models.access_codes import AccessCode
from services.models.manager_catalog import ManagerCatalog, ManagerConfig
from services.models.manifest_store import ManifestStore
from services.models.path_index import PathEntry, PathIndex
from services.models.reads import Reader
from services.models.receive import FileReceiver, FileTarget
from services.models.verify import Verifier
from services.models.versions import Version, Versions
from services.shared.errors import NotFound
from strongroom.chunking import Buffer


class PathNotFound(NotFound):
    """Nothing was saved at the path, or what the caller may not know of: all the same to who asks."""

    reason = "PATH_NOT_FOUND"


@dataclass(frozen=True)
class Uploaded:
    """Where a model is: `filepath` as it is shown."""

    model_name: str
    filepath: str


@dataclass(frozen=True)
class Loaded:
    """A model that opens."""

    model_name: str
    is_best: bool


@dataclass(frozen=True)
class Verified:
    """Whether every byte at a path is as it was stored."""

    is_valid: bool
    encrypted: bool


class ManagerModels:
    """What can be done with the models of a manager by their paths. All methods may raise ManagerNotFound."""

    def __init__(
        self,
        catalog: ManagerCatalog,
        paths: PathIndex,
        versions: Versions,
        manifest_store: ManifestStore,
        files: FileReceiver,
        reader: Reader,
        verifier: Verifier,
        clock: Callable[[], datetime],
    ) -> None:
        self._catalog = catalog
        self._paths = paths
        self._versions = versions
        self._manifests = manifest_store
        self._files = files
        self._reader = reader
        self._verifier = verifier
        self._clock = clock

    def upload(
        self,
        creator: str,
        manager_id: str,
        filename: str,
        body: Iterator[Buffer],
        may_write: Callable[[str], None],
        still_there: Callable[[], None],
        access_code: AccessCode | None = None,
    ) -> Uploaded:
        """Stores a file as a version of the model that it is named after.

        `may_write` raises unless the caller may write the model of that name, `still_there` if it has gone.
        Raises PathInvalid, and as FileReceiver.store.
        """
        config = self._catalog.config(manager_id)
        name, suffix = manager_paths.named(filename)
        may_write(name)
        target = FileTarget(manager_id, name, "", f"{name}{suffix}")
        version, _ = self._files.store(creator, target, body, still_there, access_code=access_code)
        moment = self._clock()
        stamps = (str(int(moment.timestamp())), str(int(moment.timestamp() * 1_000_000)), version.uid)
        path = self._paths.put_upload(version, [f"{name}_{stamp}{suffix}" for stamp in stamps], target.path)
        return Uploaded(name, manager_paths.shown(config.model_path, path))

    def load(
        self,
        manager_id: str,
        filepath: str,
        visible: Callable[[str], bool],
        access_code: AccessCode | None = None,
    ) -> Loaded:
        """Opens what was saved at the path: its manifest, and the beginning of its file.

        Raises PathInvalid, PathNotFound, AccessCodeRefused, DataLoss.
        """
        entry, _ = self._find(manager_id, filepath, visible)
        version = self._version(entry, manager_id)
        file = entry.file or self._manifests.load(version, access_code).files[0].path
        opened = self._reader.open(manager_id, entry.model_name, entry.version, file, 0, 1, access_code)
        for _ in self._reader.read(opened):
            pass
        return Loaded(entry.model_name, self._catalog.best_model(manager_id, visible) == entry.model_name)

    def verify(
        self, manager_id: str, filepath: str, visible: Callable[[str], bool], still_wanted: Callable[[], None]
    ) -> Verified:
        """Reads and checks every stored byte of the version at the path. Raises PathInvalid, PathNotFound."""
        entry, config = self._find(manager_id, filepath, visible)
        result = self._verifier.verify(
            manager_id, entry.model_name, self._version(entry, manager_id).name, still_wanted
        )
        return Verified(result.is_valid, config.enable_encryption)

    def _find(self, manager_id: str, filepath: str, visible: Callable[[str], bool]) -> tuple[PathEntry, ManagerConfig]:
        config = self._catalog.config(manager_id)
        entry = self._paths.find(manager_id, manager_paths.logical(config.model_path, filepath))
        if entry is None or not visible(entry.model_name):
            raise PathNotFound("Nothing was saved at this path in this manager.", manager=manager_id)
        return entry, config

    def _version(self, entry: PathEntry, manager_id: str) -> Version:
        """The version at a path. A deletion just now, or another version of its name since, is the end of the path."""
        version = self._versions.by_uid(entry.version_uid)
        if (version.manager_id, version.model_name) != (manager_id, entry.model_name):
            raise AssertionError("a path leads out of its manager")
        return version
