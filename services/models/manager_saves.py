"""Saves models: gives the newest version of one a path, and an int8 copy where the manager wants that."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.models import manager_paths
from services.models.access_codes import AccessCode
from services.models.manager_catalog import ManagerCatalog, ManagerConfig
from services.models.manifest_store import ManifestStore
from services.models.manifests import Manifest
from services.models.path_index import PathIndex
from services.models.quantized_copies import QuantizedCopies, QuantizedCopy, name_of_copy, weights
from services.models.reads import Reader
from services.models.receive import FileReceiver
from services.models.versions import LATEST, Version, Versions
from services.shared.errors import NotFound
from strongroom.chunking import Buffer

if TYPE_CHECKING:
    from services.models.quantize import Plan

# Where a model is saved for which no path is named. It says nothing about the format: nothing here is ever unpickled.
_SUFFIX = ".pkl"
DEFAULT_LEVEL = 5


@dataclass(frozen=True)
class SavedCopy:
    """An int8 copy and its own path as it is shown."""

    filepath: str
    about: QuantizedCopy


@dataclass(frozen=True)
class Saved:
    """Where a model is: `filepath` as it is shown."""

    model_name: str
    filepath: str
    encrypted: bool
    copy: SavedCopy | None


class ManagerSaves:
    """Saves models at paths of their managers."""

    def __init__(
        self,
        catalog: ManagerCatalog,
        paths: PathIndex,
        versions: Versions,
        manifest_store: ManifestStore,
        files: FileReceiver,
        reader: Reader,
    ) -> None:
        self._catalog = catalog
        self._paths = paths
        self._versions = versions
        self._manifests = manifest_store
        self._files = files
        self._reader = reader
        self._copies = QuantizedCopies(reader)

    def save(
        self,
        creator: str,
        manager_id: str,
        model_name: str,
        filepath: str,
        still_there: Callable[[], None],
        access_code: AccessCode | None = None,
        compression_level: int = DEFAULT_LEVEL,
    ) -> Saved:
        """Saves the model's newest version at a path, or at `<model_path>/<model_name>.pkl`.

        A version does not change: one that gets a copy or a lock is stored once more with it. Without a lock its own
        bytes are shared, as compressed as they are; else `compression_level`, 0 to 9, holds. `still_there` raises if
        the client has gone.

        Raises ManagerNotFound, PathInvalid, ModelNotFound, VersionNotFound, AccessCodeRefused, DataLoss.
        """
        config = self._catalog.config(manager_id)
        path = manager_paths.logical(config.model_path, filepath or f"{model_name}{_SUFFIX}")
        version = self._versions.find(manager_id, model_name, LATEST)
        manifest = self._manifests.load(version, access_code)
        plan = self._plan(config, version, manifest, access_code)
        if plan is not None or (access_code is not None and not version.protected):
            version, manifest = self._again(
                creator, version, manifest, plan, access_code, compression_level, still_there
            )
        copy = self._copies.find(version, manifest.files, access_code)
        self._paths.put(version, _places(path, manifest, copy))
        if version.protected:
            self._delete_open(creator, version, manifest)
        return Saved(
            model_name,
            manager_paths.shown(config.model_path, path),
            config.enable_encryption,
            SavedCopy(manager_paths.shown(config.model_path, name_of_copy(path)), copy) if copy else None,
        )

    def _plan(
        self, config: ManagerConfig, version: Version, manifest: Manifest, code: AccessCode | None
    ) -> "Plan | None":
        """The copy that is missing, if any."""
        original = weights(manifest.files)
        if not config.enable_quantization or original is None:
            return None
        if any(file.path == name_of_copy(original.path) for file in manifest.files):
            return None
        return self._copies.plan(version, original, code)

    def _again(
        self,
        creator: str,
        version: Version,
        manifest: Manifest,
        plan: "Plan | None",
        code: AccessCode | None,
        level: int,
        still_there: Callable[[], None],
    ) -> tuple[Version, Manifest]:
        """The version once more, with the copy beside its files, under the code."""
        names = (version.manager_id, version.model_name)

        def files() -> Iterator[tuple[str, Iterator[Buffer]]]:
            for file in manifest.files:
                opened = self._reader.open(*names, version.name, file.path, 0, None, code)
                yield file.path, self._reader.read(opened)
            original = weights(manifest.files)
            if plan is not None and original is not None:
                yield name_of_copy(original.path), plan.stream()

        return self._files.store_all(
            creator, *names, "", files(), still_there, access_code=code, compression_level=level
        )

    def _delete_open(self, creator: str, protected: Version, manifest: Manifest) -> None:
        """Deletes what the caller uploaded of these files without a lock: it would lie open beside the locked ones.

        Not what others uploaded: who may only write must not take it from them. Their paths stand for the locked
        version from now on. Run at every save, so that it makes up for one that a crash interrupted.
        """
        digests = {(file.path, file.sha256) for file in manifest.files}
        for name in self._paths.uploads(protected.manager_id, protected.model_name):
            with suppress(NotFound):
                found = self._versions.find(protected.manager_id, protected.model_name, name)
                if found.protected or found.created_by != creator:
                    continue
                if {(file.path, file.sha256) for file in self._manifests.load(found).files} <= digests:
                    self._paths.move(found, protected)
                    self._versions.delete(protected.manager_id, protected.model_name, name)


def _places(path: str, manifest: Manifest, copy: QuantizedCopy | None) -> dict[str, str]:
    """Which file of the version stands where; of several, the whole version stands at the path."""
    originals = [file.path for file in manifest.files if copy is None or file.path != copy.file]
    places = {path: originals[0] if len(originals) == 1 else ""}
    return places | ({name_of_copy(path): copy.file} if copy else {})
