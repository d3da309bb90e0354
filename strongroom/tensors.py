"""One tensor out of a version, without the rest of it.

    tensor = client.models.tensor("scorer", "layers.0.weight", version="v1")
    array = tensor.numpy()

Files are those of https://huggingface.co/docs/safetensors, in one piece or in several with an index.
"""

import json
import posixpath
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.errors import DataLoss, InvalidArgument, NotFound

if TYPE_CHECKING:
    import numpy

_SUFFIX = ".safetensors"
_INDEX = ".safetensors.index.json"
# Of an index: a million tensors.
MAX_INDEX = 128 << 20
_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


@dataclass(frozen=True)
class Tensor:
    """A tensor: its type as the file names it (`F32`, `BF16`, …), its shape, its bytes, little-endian, row by row."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    def numpy(self) -> "numpy.ndarray":
        """As an array that shares the bytes, so it can't be written to; BF16, which NumPy lacks, as float32.

        Raises InvalidArgument for a type that NumPy has not, and DataLoss if the bytes do not make up the shape.
        """
        import numpy

        if self.dtype not in _NUMPY and self.dtype != "BF16":
            message = f"NumPy has no type {self.dtype}. Take the bytes from `data`."
            raise InvalidArgument(message, reason="DTYPE_UNKNOWN")
        try:
            if self.dtype == "BF16":
                # The upper half of a float32 is what it is.
                halves = numpy.frombuffer(self.data, "<u2").reshape(self.shape)
                return (halves.astype("<u4") << 16).view("<f4")
            return numpy.frombuffer(self.data, _NUMPY[self.dtype]).reshape(self.shape)
        except ValueError:
            raise DataLoss(f"The bytes of {self.name} do not make up its shape.", reason="TENSOR_MALFORMED") from None

    def safetensors(self) -> bytes:
        """A safetensors file with this tensor alone."""
        entry = {"dtype": self.dtype, "shape": list(self.shape), "data_offsets": [0, len(self.data)]}
        header = json.dumps({self.name: entry}, ensure_ascii=False).encode()
        header += b" " * (-len(header) % 8)
        return struct.pack("<Q", len(header)) + header + self.data


def only_file(paths: Sequence[str]) -> str | None:
    """The one safetensors file of a version; None if there are several. NotFound with reason NO_SAFETENSORS."""
    found = [path for path in paths if path.endswith(_SUFFIX)]
    if not found:
        raise NotFound("The version has no safetensors file, so no tensor in it can be named.", reason="NO_SAFETENSORS")
    return found[0] if len(found) == 1 else None


def index_of(paths: Sequence[str]) -> str:
    """The index of a version in several files. InvalidArgument with reason FILE_NEEDED unless it has one."""
    found = [path for path in paths if path.endswith(_INDEX)]
    if len(found) != 1:
        raise InvalidArgument("The version has several safetensors files. Name one of them.", reason="FILE_NEEDED")
    return found[0]


def file_of(name: str, index: str, content: bytes) -> str:
    """The file that an index says holds a tensor. NotFound with reason TENSOR_NOT_FOUND, DataLoss."""
    try:
        found = json.loads(content)["weight_map"].get(name)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DataLoss(f"{index} is no index of tensors.", reason="INDEX_MALFORMED") from None
    if not isinstance(found, str):
        raise NotFound(f"{index} names no tensor {name}.", reason="TENSOR_NOT_FOUND")
    return posixpath.join(posixpath.dirname(index), found)
