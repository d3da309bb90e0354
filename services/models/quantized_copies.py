"""The int8 copy of a stored model: made, and found again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.models.access_codes import AccessCode
from services.models.manifests import ManifestFile
from services.models.reads import Reader
from services.models.versions import Version
from strongroom.chunking import Buffer

if TYPE_CHECKING:
    # numpy takes a tenth of a second and 25 MiB: only where a manager quantizes.
    from services.models.quantize import Plan, Report
    from services.models.tensor_files import ReadRange

_SUFFIXES = (".safetensors", ".npz")
_COPY = ".int8.safetensors"


@dataclass(frozen=True)
class QuantizedCopy:
    """A copy beside its original: `file` is its path in the version, sizes in bytes."""

    file: str
    size: int
    original_size: int
    report: "Report"


class QuantizedCopies:
    """Makes and finds copies, reading the files of versions."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def plan(self, version: Version, file: ManifestFile, code: AccessCode | None) -> "Plan | None":
        """A copy of a file, measured; None if it has none. Raises as Reader.read."""
        from services.models.quantize import NotQuantizableError, plan
        from services.models.tensor_files import tensors_of

        try:
            return plan(tensors_of(file.path, file.size, self._ranges(version, file.path, code)))
        except NotQuantizableError:
            return None

    def find(self, version: Version, files: Sequence[ManifestFile], code: AccessCode | None) -> QuantizedCopy | None:
        """The copy in a version that has one."""
        original = weights(files)
        copy = original and next((file for file in files if file.path == name_of_copy(original.path)), None)
        if original is None or copy is None:
            return None
        from services.models.quantize import NotQuantizableError, report_in
        from services.models.tensor_files import safetensors

        try:
            _, metadata = safetensors(copy.size, self._ranges(version, copy.path, code))
        except NotQuantizableError:
            return None
        report = report_in(metadata)
        return QuantizedCopy(copy.path, copy.size, original.size, report) if report else None

    def _ranges(self, version: Version, path: str, code: AccessCode | None) -> "ReadRange":
        def read(offset: int, length: int) -> Iterator[Buffer]:
            opened = self._reader.open(version.manager_id, version.model_name, version.name, path, offset, length, code)
            return self._reader.read(opened)

        return read


def weights(files: Sequence[ManifestFile]) -> ManifestFile | None:
    """The one file of a version that can have a copy: of several, which is meant nobody knows."""
    found = [file for file in files if file.path.endswith(_SUFFIXES) and not file.path.endswith(_COPY)]
    return found[0] if len(found) == 1 else None


def name_of_copy(path: str) -> str:
    """`scorer.npz` → `scorer.int8.safetensors`, whatever the suffix."""
    folder, slash, name = path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    return f"{folder}{slash}{stem}{_COPY}"
