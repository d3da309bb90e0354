"""The messages of the bulk methods, read and written by hand.

Protobuf's Python types copy every `bytes` field, which costs a quarter of the way. On the wire nothing differs: what is
written here is valid protobuf, and what a client sends in another order than the usual is parsed by protobuf.
Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from services.shared.errors import InvalidArgument
from strongroom.chunking import MAX_CHUNK
from strongroom.models.v1 import files_pb2, weights_pb2

_Request = TypeVar("_Request", bound=Message)

MAX_FRAME = 8 << 20
# As in the proto's rule for CommitUploadRequest.files.
MAX_FILES = 100_000
# Of a frame: more lengths, each read by a loop, would keep every other thread of the process waiting for half a minute.
MAX_CHUNKS = 100_000
# Of a CommitUploadRequest beside its files: three, of which a sender may repeat some.
_MOST_OTHERS = 100

# Tags of length-delimited fields: number << 3 | 2.
_FIELD_1, _FIELD_2, _FIELD_4, _FIELD_5 = 0x0A, 0x12, 0x22, 0x2A
_DELIMITED = 2
_VARINT_BYTES = 4  # of those read here
_CONTENT_TYPE = b"application/octet-stream"


class FrameInvalid(InvalidArgument):
    """A message of a bulk stream is not what the protocol wants at its place."""

    reason = "FRAME_INVALID"


@dataclass(frozen=True)
class Frame:
    """Whole chunks, one after another; views of the message."""

    lengths: Sequence[int]
    data: memoryview = field(repr=False)

    def chunks(self) -> Iterator[memoryview]:
        start = 0
        for length in self.lengths:
            yield self.data[start : start + length]
            start += length


def parse_header(message: bytes) -> weights_pb2.WriteChunksHeader:
    """The first message of WriteChunks. FrameInvalid if it is a frame."""
    request = _parse(weights_pb2.WriteChunksRequest, message)
    if request.WhichOneof("message") != "header":
        raise FrameInvalid("The first message is the header.")
    return request.header


def parse_frame(message: bytes) -> Frame:
    """Any other message of WriteChunks. FrameInvalid, also where lengths and data do not fit."""
    frame = _slice_frame(message) or _parse_frame(message)
    if len(frame.lengths) > MAX_CHUNKS:
        raise _too_many_chunks()
    if not frame.lengths or not all(0 < length <= MAX_CHUNK for length in frame.lengths):
        raise FrameInvalid(f"A frame has chunks, of 1 to {MAX_CHUNK} bytes each.")
    if len(frame.data) > MAX_FRAME:
        raise FrameInvalid(f"A frame has at most {MAX_FRAME} bytes.")
    if sum(frame.lengths) != len(frame.data):
        raise FrameInvalid("The lengths of a frame sum to the length of its data.")
    return frame


def parse_commit(message: bytes) -> weights_pb2.CommitUploadRequest:
    """A CommitUploadRequest, of too many files only the first 100,001: enough for validation to refuse it.

    An empty file is 2 bytes here and 90 in memory: a message of 64 MiB would be 3 GB. Raises DecodeError.
    """
    return weights_pb2.CommitUploadRequest.FromString(message[: _end_of_fields(message, _FIELD_4, MAX_FILES + 1)])


def parse_put(message: bytes) -> files_pb2.PutFileRequest:
    """The first message of PutFile, with all fields."""
    return _parse(files_pb2.PutFileRequest, message)


def parse_body(message: bytes) -> memoryview:
    """The bytes in a later message of PutFile. FrameInvalid if it names anything."""
    body = _slice_body(message)
    if body is not None:
        return body
    request = _parse(files_pb2.PutFileRequest, message)
    if request.manager_id or request.model_name or request.version or request.path or request.compression_level:
        raise FrameInvalid("Only the first message of a file names anything.")
    return memoryview(request.body.data)


def encode_data(pieces: Sequence[memoryview]) -> bytes:
    """A ReadFileResponse."""
    return b"".join((_tag(_FIELD_1, sum(map(len, pieces))), *pieces))


def encode_body(pieces: Sequence[memoryview], *, first: bool) -> bytes:
    """A google.api.HttpBody; the first of a stream carries the content type."""
    kind = _tag(_FIELD_1, len(_CONTENT_TYPE)) + _CONTENT_TYPE if first else b""
    return b"".join((kind, _tag(_FIELD_2, sum(map(len, pieces))), *pieces))


def grouped(pieces: Iterator[memoryview], size: int) -> Iterator[list[memoryview]]:
    """The same bytes in groups of `size` together, the last one less; no bytes, no group."""
    group: list[memoryview] = []
    room = size
    for piece in pieces:
        while len(piece) >= room:
            yield [*group, piece[:room]]
            group, piece, room = [], piece[room:], size
        if piece:
            group.append(piece)
            room -= len(piece)
    if group:
        yield group


def _slice_frame(message: bytes) -> Frame | None:
    """A frame in the form every client writes: packed lengths, then data, nothing else; None for any other."""
    view = memoryview(message)
    outer = _delimited(view, 0, _FIELD_2)
    if outer is None or outer[1] != len(view):
        return None
    packed = _delimited(view, outer[0], _FIELD_1)
    if packed is None:
        return None
    data = _delimited(view, packed[1], _FIELD_2)
    if data is None or data[1] != len(view):
        return None
    if packed[1] - packed[0] > _VARINT_BYTES * MAX_CHUNKS:
        raise _too_many_chunks()
    lengths = []
    position = packed[0]
    while position < packed[1]:
        number = _varint(view, position, packed[1])
        if number is None:
            return None
        length, position = number
        lengths.append(length)
    return Frame(lengths, view[data[0] : data[1]])


def _parse_frame(message: bytes) -> Frame:
    request = _parse(weights_pb2.WriteChunksRequest, message)
    if request.WhichOneof("message") != "frame":
        raise FrameInvalid("Every message but the first is a frame.")
    if len(request.frame.lengths) > MAX_CHUNKS:
        raise _too_many_chunks()  # before they are copied
    return Frame(tuple(request.frame.lengths), memoryview(request.frame.data))


def _slice_body(message: bytes) -> memoryview | None:
    """The data of a message with nothing but a body, whose content type may come first; None for any other."""
    view = memoryview(message)
    outer = _delimited(view, 0, _FIELD_5)
    if outer is None or outer[1] != len(view):
        return None
    kind = _delimited(view, outer[0], _FIELD_1)
    if kind is not None and not bytes(view[kind[0] : kind[1]]).isascii():
        return None  # maybe no UTF-8: protobuf decides
    data = _delimited(view, outer[0] if kind is None else kind[1], _FIELD_2)
    if data is None or data[1] != len(view):
        return None
    return view[data[0] : data[1]]


def _delimited(view: memoryview, position: int, tag: int) -> tuple[int, int] | None:
    """Where the content of the field at `position` begins and ends, if it is that one."""
    if position >= len(view) or view[position] != tag:
        return None
    length = _varint(view, position + 1, len(view))
    if length is None or length[1] + length[0] > len(view):
        return None
    return length[1], length[1] + length[0]


def _end_of_fields(message: bytes, tag: int, most: int) -> int:
    """Where the `most`th field with this tag ends, or the message. Groups, which we have none of, are refused."""
    view = memoryview(message)
    position = found = others = 0
    while position < len(view) and found < most and others <= _MOST_OTHERS:
        key = _varint(view, position, len(view))
        number = key and _varint(view, key[1], len(view))
        wire_type = key[0] & 7 if key else None
        if number and wire_type == _DELIMITED:
            position = number[1] + number[0]
        elif number and wire_type == 0:
            position = number[1]
        else:
            raise DecodeError("The message is not of the method's type.")
        if key and key[0] == tag:
            found += 1
        else:
            others += 1
    if others > _MOST_OTHERS:
        raise DecodeError("The message has fields that its type does not have.")
    return position


def _varint(view: memoryview, position: int, end: int) -> tuple[int, int] | None:
    """The number at `position`, below 2**28, and where the next field begins; longer forms are left to protobuf."""
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        if position >= end:
            return None
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    return None


def _tag(tag: int, length: int) -> bytes:
    head = bytearray([tag])
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)


def _too_many_chunks() -> FrameInvalid:
    return FrameInvalid(f"A frame has at most {MAX_CHUNKS} chunks.")


def _parse(kind: type[_Request], message: bytes) -> _Request:
    try:
        return kind.FromString(message)
    except DecodeError:
        raise FrameInvalid("The message is not of the method's type.") from None
