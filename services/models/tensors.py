"""Tensors in a safetensors file, found by name (https://huggingface.co/docs/safetensors)."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass

from services.shared.errors import FailedPrecondition, NotFound
from strongroom.chunking import Buffer

LENGTH_BYTES = 8
# Some 150,000 tensors.
MAX_HEADER = 16 << 20
_MAX_DIMENSIONS = 64


class NotSafetensors(FailedPrecondition):
    """The file is not what the safetensors format says, or its header is longer than 16 MiB."""

    reason = "NOT_SAFETENSORS"

    def __init__(self) -> None:
        super().__init__("The file is no safetensors file, so no tensor in it can be named. Read it by offset.")


class TensorNotFound(NotFound):
    """The file has no tensor of that name."""

    reason = "TENSOR_NOT_FOUND"


@dataclass(frozen=True)
class Tensor:
    """A tensor's type as the file names it, its shape, and where in the file its bytes are."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def find(name: str, size: int, read: Callable[[int, int], Buffer]) -> Tensor:
    """The tensor of that name in a file of `size` bytes, of which `read` gives those from one offset to another.

    Whatever the header says, the range lies within the file. Raises NotSafetensors, TensorNotFound.
    """
    if size < LENGTH_BYTES:
        raise NotSafetensors
    (length,) = struct.unpack("<Q", read(0, LENGTH_BYTES))
    data = LENGTH_BYTES + length
    if length > MAX_HEADER or data > size:
        raise NotSafetensors
    try:
        header = json.loads(str(read(LENGTH_BYTES, data), "utf-8"))
    except (ValueError, RecursionError):
        raise NotSafetensors from None
    if not isinstance(header, dict):
        raise NotSafetensors
    entry = None if name == "__metadata__" else header.get(name)
    if entry is None:
        raise TensorNotFound(f"The file has {len(header)} tensors, and none of this name.")
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise NotSafetensors from None
    numbers = [*shape, begin, end] if isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS else [None]
    whole = all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
    if not whole or not isinstance(dtype, str) or len(dtype) > 16 or not begin <= end <= size - data:
        raise NotSafetensors
    return Tensor(dtype, tuple(shape), data + begin, data + end)
