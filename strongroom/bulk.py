"""The bulk messages of the data plane, assembled and taken apart by hand.

They are the protobuf messages of `weights.proto` to the byte; made by hand, a message costs one copy of its data, not
three. https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Sequence

import grpc

from strongroom.models.v1 import weights_pb2

_SERVICE = "/strongroom.models.v1.WeightsService"
# Tags: field number, and 2 for what has a length before it.
_FRAME = 2 << 3 | 2
_LENGTHS = 1 << 3 | 2
_DATA = 2 << 3 | 2
_RESPONSE_DATA = 1 << 3 | 2


def encode_header(header: weights_pb2.WriteChunksHeader) -> bytes:
    """The first message of WriteChunks."""
    return weights_pb2.WriteChunksRequest(header=header).SerializeToString()


def encode_frame(chunks: Sequence[bytes | memoryview]) -> bytes:
    """A message of WriteChunks with these chunks."""
    lengths = b"".join(_varint(len(chunk)) for chunk in chunks)
    size = sum(map(len, chunks))
    head = bytes([_LENGTHS]) + _varint(len(lengths)) + lengths + bytes([_DATA]) + _varint(size)
    return b"".join((bytes([_FRAME]), _varint(len(head) + size), head, *chunks))


def decode_data(message: bytes) -> memoryview | bytes:
    """The `data` of a ReadFileResponse, without copying it."""
    if message and message[0] == _RESPONSE_DATA:
        length = shift = 0
        for at in range(1, min(len(message), 6)):
            length |= (message[at] & 0x7F) << shift
            shift += 7
            if message[at] < 0x80:
                if at + 1 + length == len(message):
                    return memoryview(message)[at + 1 :]
                break
    # Not in the one shape that senders write: anything else that is valid protobuf is understood as well.
    return weights_pb2.ReadFileResponse.FromString(message).data


def write_chunks(channel: grpc.Channel) -> "grpc.StreamUnaryMultiCallable[bytes, weights_pb2.WriteChunksResponse]":
    """WriteChunks for messages that are bytes already."""
    response = weights_pb2.WriteChunksResponse.FromString
    return channel.stream_unary(f"{_SERVICE}/WriteChunks", request_serializer=None, response_deserializer=response)


def read_file(channel: grpc.Channel) -> "grpc.UnaryStreamMultiCallable[weights_pb2.ReadFileRequest, bytes]":
    """ReadFile whose answers stay bytes."""
    request = weights_pb2.ReadFileRequest.SerializeToString
    return channel.unary_stream(f"{_SERVICE}/ReadFile", request_serializer=request, response_deserializer=None)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
