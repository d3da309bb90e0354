"""The tensors of a safetensors or npz file, read in parts and without running anything that stands in it.

A file is whatever somebody sent: every length in it is checked before memory is taken for it. Pickled objects, which an
npz may hold, are never opened.
"""

import io
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from services.models.quantize import BITS, NUMPY, NotQuantizableError, Tensor
from strongroom.chunking import MAX_HEADER, Buffer

# Reads bytes of a file: offset and length → its bytes, in pieces.
ReadRange = Callable[[int, int], Iterator[Buffer]]

_MOST_TENSORS = 100_000
# Of a member of an npz: shape and type as a Python literal.
_MOST_NPY_HEADER = 64 << 10
# The directory of an npz is read as a whole.
_MOST_AT_ONCE = 4 << 20
_BUFFER = 4 << 20
# An npz unpacks to so many times its size, and this much more: what is beyond costs hours.
_MOST_RATIO, _ALLOWANCE = 100, 64 << 20
# Arrays in column-major order are held whole.
_MOST_HELD = 32 << 20
_PIECE = 1 << 20

_SAFETENSORS = {np.dtype(kind): name for name, kind in NUMPY.items()}


def tensors_of(path: str, size: int, read: ReadRange) -> list[Tensor]:
    """The tensors of a file of `size` bytes whose path ends in `.safetensors` or `.npz`.

    Raises NotQuantizableError.
    """
    return safetensors(size, read)[0] if path.endswith(".safetensors") else npz(size, read)


def safetensors(size: int, read: ReadRange) -> tuple[list[Tensor], object]:
    """The tensors, in the order of their bytes, and the header's `__metadata__` (None without). NotQuantizableError."""
    if size < 8:
        raise NotQuantizableError("no header")
    (length,) = struct.unpack("<Q", b"".join(read(0, 8)))
    if length > min(MAX_HEADER, size - 8):
        raise NotQuantizableError("the header is longer than the file, or than any of ours")
    try:
        header = json.loads(b"".join(read(8, length)))
        metadata = header.pop("__metadata__", None)
        found = [_entry(name, entry, 8 + length, read) for name, entry in header.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise NotQuantizableError("the header is not as the format says") from None
    position = 0
    found.sort(key=lambda pair: pair[0])
    for begin, tensor in found:
        # No holes and no overlaps, says the format.
        if begin != position:
            raise NotQuantizableError("the tensors do not stand one after another")
        position += tensor.size
    if position != size - 8 - length:
        raise NotQuantizableError("the file is not as long as its tensors")
    return [tensor for _, tensor in found], metadata


def _entry(name: str, entry: dict[str, Any], data: int, read: ReadRange) -> tuple[int, Tensor]:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in (begin, end, *shape)):
        raise ValueError("numbers of a header are whole")
    if entry["dtype"] not in BITS:
        raise NotQuantizableError("a type of tensor that is not known here")
    tensor = Tensor(name, entry["dtype"], shape, partial(read, data + begin, end - begin))
    if tensor.size != end - begin:
        raise ValueError("a tensor is as long as its shape says")
    return begin, tensor


def npz(size: int, read: ReadRange) -> list[Tensor]:
    """The arrays of an npz file (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)."""
    with _refusing():
        archive = zipfile.ZipFile(_Bounded(_RangeFile(size, read), _BUFFER))
        members = archive.infolist()
        if len(members) > _MOST_TENSORS or len({member.filename for member in members}) < len(members):
            raise NotQuantizableError("too many arrays, or two of one name")
        if sum(member.file_size for member in members) > _MOST_RATIO * size + _ALLOWANCE:
            raise NotQuantizableError("the file unpacks to far more than it is")
        return [_array(archive, member) for member in members]


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Tensor:
    # Others, such as LZMA, take as much memory as the file asks for.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or not member.filename.endswith(".npy"):
        raise NotQuantizableError("not what numpy writes")
    with archive.open(member) as file:
        shape, column_major, dtype, start = _npy_header(file)
    name = _SAFETENSORS.get(dtype.newbyteorder("<"))
    if dtype.hasobject or name is None:
        raise NotQuantizableError("an array of a type that the format does not have")
    if any(number < 0 for number in shape):
        raise NotQuantizableError("a shape with a negative number")
    tensor = Tensor(member.filename.removesuffix(".npy"), name, shape, lambda: pieces())
    if tensor.size != member.file_size - start:
        raise NotQuantizableError("an array is not as long as its shape says")
    if column_major and tensor.size > _MOST_HELD:
        raise NotQuantizableError("an array in column-major order is too large to be turned")

    def pieces() -> Iterator[Buffer]:
        with _refusing(), archive.open(member) as file:
            file.read(start)
            if column_major:
                yield _turned(file.read(), dtype, shape)
            while piece := file.read(_PIECE):
                yield piece if dtype.newbyteorder("<") == dtype else np.frombuffer(piece, dtype).byteswap().tobytes()

    return tensor


def _turned(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    array = np.frombuffer(data, dtype).reshape(shape, order="F")
    return np.ascontiguousarray(array, dtype.newbyteorder("<")).tobytes()


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in column-major order, type, and where the values begin."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): ("<H", np.lib.format.read_array_header_1_0), (2, 0): ("<I", np.lib.format.read_array_header_2_0)}
    if version not in readers:
        raise NotQuantizableError("a later version of the format, for arrays of records")
    kind, parse = readers[version]
    prefix = file.read(struct.calcsize(kind))
    (length,) = struct.unpack(kind, prefix)
    # numpy looks at this only once it has read as much.
    if length > _MOST_NPY_HEADER:
        raise NotQuantizableError("a header that is too long")
    header = prefix + file.read(length)
    shape, column_major, dtype = parse(io.BytesIO(header))
    return shape, column_major, dtype, np.lib.format.MAGIC_LEN + len(header)


class _refusing:  # noqa: N801 - reads as a word
    """Turns what libraries raise over a broken archive into NotQuantizableError."""

    _ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError)
    # Of a header: numpy reads it as Python, if need be as that of Python 2.
    _BROKEN = (*_ARCHIVE, ValueError, RuntimeError, SyntaxError, tokenize.TokenError)

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, self._BROKEN):
            raise NotQuantizableError("the archive is broken") from None


class _RangeFile(io.RawIOBase):
    """A stored file as one that can be read anywhere."""

    def __init__(self, size: int, read: ReadRange) -> None:
        self._size = size
        self._read = read
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        length = min(len(target), max(0, self._size - self._position))
        filled = 0
        for piece in self._read(self._position, length) if length else ():
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
        self._position += filled
        return filled


class _Bounded(io.BufferedReader):
    """Reads no more at once than there is reason for."""

    def read(self, size: int | None = -1) -> bytes:
        wanted = _MOST_AT_ONCE + 1 if size is None or size < 0 else size
        data = super().read(min(wanted, _MOST_AT_ONCE + 1))
        if len(data) > _MOST_AT_ONCE:
            raise NotQuantizableError("the archive's directory is too long")
        return data
