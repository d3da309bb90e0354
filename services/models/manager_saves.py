"""Saves models: gives the newest version of one a path, and an int8 copy where the manager wants that."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.models import manager_paths
from services.models.manager_catalog import ManagerCatalog, ManagerConfig
from services.models.manifest_store import ManifestStore
from services.models.manifests import Manifest
from services.models.path_index import PathIndex
from services.models.quantized_copies import QuantizedCopies, QuantizedCopy, name_of_copy, weights
from services.models.reads import Reader
from services.models.receive import FileReceiver
from services.models.versions import LATEST, Version, Versions
from strongroom.chunking import Buffer

if TYPE_CHECKING:
    from services.models.quantize import Plan

# Where a model is saved for which no path is named. It says nothing about the format: nothing here is ever unpickled.
_SUFFIX = ".pkl"


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
        self, creator: str, manager_id: str, model_name: str, filepath: str, still_there: Callable[[], None]
    ) -> Saved:
        """Saves the model's newest version at a path, or at `<model_path>/<model_name>.pkl`.

        A version does not change: one that gets a copy is stored once more with it, its own bytes shared.
        `still_there` raises if the client has gone.

        Raises ManagerNotFound, PathInvalid, ModelNotFound, VersionNotFound, DataLoss.
        """
        config = self._catalog.config(manager_id)
        path = manager_paths.logical(config.model_path, filepath or f"{model_name}{_SUFFIX}")
        version = self._versions.find(manager_id, model_name, LATEST)
        manifest = self._manifests.load(version)
        if (plan := self._plan(config, version, manifest)) is not None:
            version, manifest = self._again(creator, version, manifest, plan, still_there)
        copy = self._copies.find(version, manifest.files)
        self._paths.put(version, _places(path, manifest, copy))
        return Saved(
            model_name,
            manager_paths.shown(config.model_path, path),
            config.enable_encryption,
            SavedCopy(manager_paths.shown(config.model_path, name_of_copy(path)), copy) if copy else None,
        )

    def _plan(self, config: ManagerConfig, version: Version, manifest: Manifest) -> "Plan | None":
        """The copy that is missing, if any."""
        original = weights(manifest.files)
        if not config.enable_quantization or original is None:
            return None
        if any(file.path == name_of_copy(original.path) for file in manifest.files):
            return None
        return self._copies.plan(version, original)

    def _again(
        self, creator: str, version: Version, manifest: Manifest, plan: "Plan", still_there: Callable[[], None]
    ) -> tuple[Version, Manifest]:
        """The version once more, with the copy beside its files."""
        original = weights(manifest.files)
        assert original is not None

        def files() -> Iterator[tuple[str, Iterator[Buffer]]]:
            for file in manifest.files:
                opened = self._reader.open(version.manager_id, version.model_name, version.name, file.path, 0, None)
                yield file.path, self._reader.read(opened)
            yield name_of_copy(original.path), plan.stream()

        return self._files.store_all(creator, version.manager_id, version.model_name, "", files(), still_there)


def _places(path: str, manifest: Manifest, copy: QuantizedCopy | None) -> dict[str, str]:
    """Which file of the version stands where; of several, the whole version stands at the path."""
    originals = [file.path for file in manifest.files if copy is None or file.path != copy.file]
    places = {path: originals[0] if len(originals) == 1 else ""}
    return places | ({name_of_copy(path): copy.file} if copy else {})
