"""Int8 copies of tensors, a scale for each channel, in a stream (https://arxiv.org/abs/2004.09602, section 3).

A channel is a row: what shares the first index. Symmetric and linear: `value ≈ int8 × scale`, the scale the greatest
magnitude of the row divided by 127. The tensors are read twice, a few rows at a time: once to measure the error, which
stands in the header of what is written, and once to write. Nothing is ever held whole.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from strongroom.chunking import Buffer

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_FORMAT = "strongroom int8 v1"

# Bits of each type of the format (https://huggingface.co/docs/safetensors), and how numpy names those it knows.
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BF16": 16, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "C64": 64}
_UNSIGNED = {"BOOL": "|b1", "U8": "|u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"}
_SIGNED = {"I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
NUMPY = _UNSIGNED | _SIGNED | {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
BITS |= {name: 8 * np.dtype(kind).itemsize for name, kind in NUMPY.items()}
_FLOATS = frozenset({"BF16", "F16", "F32", "F64"})

# Rows are taken together up to so many bytes.
_BLOCK_BYTES = 1 << 20
# A row shorter than this gains nothing, one longer would be too much to hold.
_LEAST_ROW, _MOST_ROW = 16, 1 << 20
# Their scales are held until the rows are written: 4 bytes each.
_MOST_ROWS = 8 << 20


class NotQuantizableError(Exception):
    """The file is not what its name says, or holds what the format cannot. No error of a request: there is no copy."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file. `read` yields its bytes, row-major and little-endian, cut anywhere, as often as asked."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Iterator[Buffer]] = field(repr=False)

    @property
    def size(self) -> int:
        """In bytes. ValueError unless they are whole."""
        size, rest = divmod(math.prod(self.shape) * BITS[self.dtype], 8)
        if rest:
            raise NotQuantizableError("a tensor does not end on a whole byte")
        return size

    @property
    def quantizable(self) -> bool:
        if self.dtype not in _FLOATS or len(self.shape) < 2:
            return False
        return _LEAST_ROW <= math.prod(self.shape[1:]) <= _MOST_ROW and 0 < self.shape[0] <= _MOST_ROWS

    def blocks(self) -> Iterator[Floats]:
        """The values, some rows at a time."""
        length = math.prod(self.shape[1:])
        row = length * BITS[self.dtype] // 8
        for piece in _regrouped(self.read(), max(1, _BLOCK_BYTES // row) * row, self.size):
            yield _floats(piece, self.dtype).reshape(-1, length)


@dataclass(frozen=True)
class Report:
    """What an int8 copy costs. `relative_error`: the root of the mean squared error as a part of that of the values."""

    tensors_quantized: int
    tensors_kept: int
    max_error: float
    relative_error: float


@dataclass(frozen=True)
class Plan:
    """A copy that can be written: `size` in bytes."""

    header: bytes = field(repr=False)
    tensors: Sequence[tuple[Tensor, bool]] = field(repr=False)
    size: int

    def stream(self) -> Iterator[Buffer]:
        """The bytes of the copy, a safetensors file."""
        yield self.header
        for tensor, quantized in self.tensors:
            yield from _quantized(tensor) if quantized else _regrouped(tensor.read(), _BLOCK_BYTES, tensor.size)


def plan(tensors: Sequence[Tensor]) -> Plan:
    """Measures the copy, reading all tensors: what can be planned can be written.

    Those that are no floats, have less than two dimensions or a value that is not finite stay as they are.

    Raises NotQuantizableError if none is left.
    """
    errors = {tensor.name: error for tensor in tensors if tensor.quantizable and (error := _measure(tensor))}
    if not errors:
        raise NotQuantizableError("no tensor of floats has rows")
    for tensor in tensors:
        if tensor.name not in errors:
            for _ in _regrouped(tensor.read(), _BLOCK_BYTES, tensor.size):
                pass
    names = {tensor.name for tensor in tensors}
    entries: dict[str, object] = {"__metadata__": _metadata(errors, len(tensors))}
    offset = 0

    def add(name: str, dtype: str, shape: Sequence[int], size: int) -> None:
        nonlocal offset
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size

    for tensor in tensors:
        if tensor.name not in errors:
            add(tensor.name, tensor.dtype, tensor.shape, tensor.size)
            continue
        add(tensor.name, "I8", tensor.shape, math.prod(tensor.shape))
        scale = f"{tensor.name}.scale"
        if scale in names:
            raise NotQuantizableError("a tensor has the name of a scale")
        add(scale, "F32", tensor.shape[:1], 4 * tensor.shape[0])
    encoded = json.dumps(entries, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    header = struct.pack("<Q", len(encoded)) + encoded
    return Plan(header, [(tensor, tensor.name in errors) for tensor in tensors], len(header) + offset)


def report_in(metadata: object) -> Report | None:
    """The report in the `__metadata__` of a safetensors header; None if it is none of ours."""
    try:
        assert isinstance(metadata, dict)
        assert metadata["format"] == _FORMAT
        return Report(
            int(metadata["tensors_quantized"]),
            int(metadata["tensors_kept"]),
            float(metadata["max_error"]),
            float(metadata["relative_error"]),
        )
    except (AssertionError, KeyError, TypeError, ValueError):
        return None


@dataclass
class _Error:
    """The error of one tensor: the greatest, and sums of squares."""

    greatest: float = 0.0
    squared: float = 0.0
    values_squared: float = 0.0

    @property
    def relative(self) -> float:
        return math.sqrt(self.squared / self.values_squared) if self.values_squared else 0.0


def _measure(tensor: Tensor) -> _Error | None:
    """None if a value is not finite, or too large for a scale."""
    error = _Error()
    for block in tensor.blocks():
        with np.errstate(over="ignore", invalid="ignore"):
            scales, whole = _round(block)
            difference = block - whole * scales[:, None]
        if not (np.isfinite(scales).all() and np.isfinite(difference).all()):
            return None
        flat = difference.astype(np.float64).ravel()
        values = block.astype(np.float64).ravel()
        error.greatest = max(error.greatest, float(np.abs(flat).max()))
        error.squared += float(flat @ flat)
        error.values_squared += float(values @ values)
    return error if math.isfinite(error.squared) and math.isfinite(error.values_squared) else None


def _round(block: Floats) -> tuple[npt.NDArray[np.float32], Floats]:
    """A scale for each row, and the rows in whole multiples of it."""
    scales = (np.abs(block).max(axis=1) / 127).astype(np.float32)
    scales[scales == 0] = 1
    return scales, np.clip(np.rint(block / scales[:, None]), -127, 127)


def _quantized(tensor: Tensor) -> Iterator[Buffer]:
    """Its rows as int8, then its scales."""
    scales = []
    for block in tensor.blocks():
        some, whole = _round(block)
        scales.append(some)
        yield whole.astype(np.int8).tobytes()
    for some in scales:
        yield some.astype("<f4").tobytes()


def _metadata(errors: dict[str, _Error], count: int) -> dict[str, str]:
    """What the copy says of itself; the format allows strings alone."""
    total = _Error(
        max(error.greatest for error in errors.values()),
        math.fsum(error.squared for error in errors.values()),
        math.fsum(error.values_squared for error in errors.values()),
    )
    tensors = {name: {"max_error": e.greatest, "relative_error": e.relative} for name, e in errors.items()}
    return {
        "format": _FORMAT,
        "tensors_quantized": str(len(errors)),
        "tensors_kept": str(count - len(errors)),
        "max_error": repr(total.greatest),
        "relative_error": repr(total.relative),
        "tensors": json.dumps(tensors, separators=(",", ":")),
    }


def _floats(data: bytes, dtype: str) -> Floats:
    if dtype == "F64":
        return np.frombuffer(data, "<f8")
    if dtype == "BF16":
        # The upper half of a float32.
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, NUMPY[dtype]).astype(np.float32, copy=False)


def _regrouped(pieces: Iterator[Buffer], size: int, total: int) -> Iterator[bytes]:
    """The same bytes in pieces of `size`, the last one less. NotQuantizableError unless they are `total`."""
    waiting = bytearray()
    seen = 0
    for piece in pieces:
        seen += len(piece)
        waiting += piece
        whole = len(waiting) - len(waiting) % size
        for start in range(0, whole, size):
            yield bytes(waiting[start : start + size])
        del waiting[:whole]
    if seen != total:
        raise NotQuantizableError("a tensor has not as many bytes as its shape says")
    if waiting:
        yield bytes(waiting)
