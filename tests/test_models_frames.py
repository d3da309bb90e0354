"""Messages of the bulk methods: sliced by hand, and hostile."""

import time
from collections.abc import Iterator

import grpc
import pytest
from google.api import httpbody_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from services.models import bulk_frames
from services.models.bulk_frames import FrameInvalid
from strongroom.models.v1 import files_pb2, weights_pb2
from tests.models_installation import MODEL, Installation, installation, noise, refused

Code = grpc.StatusCode
MIB = 1 << 20


def frame(lengths: list[int], data: bytes) -> bytes:
    message = weights_pb2.WriteChunksRequest(frame=weights_pb2.ChunkFrame(lengths=lengths, data=data))
    return message.SerializeToString()


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_a_frame_is_sliced_as_protobuf_parses_it(lengths: list[int]) -> None:
    data = noise(1, sum(lengths))
    message = frame(lengths, data)
    chunks = list(bulk_frames.parse_frame(message).chunks())
    assert [len(chunk) for chunk in chunks] == lengths
    assert b"".join(chunks) == data
    assert chunks[0].obj is message, "no copy is made"


def test_a_frame_in_another_order_is_understood_too() -> None:
    lengths, data = b"\x0a\x02\x01\x02", b"\x12\x03abc"
    for content in (data + lengths, b"\x08\x01\x08\x02" + data, lengths + data + b"\x18\x07"):
        message = b"\x12" + bytes([len(content)]) + content
        chunks = bulk_frames.parse_frame(message).chunks()
        assert [bytes(chunk) for chunk in chunks] == [b"a", b"bc"]


@pytest.mark.parametrize(
    "message",
    [
        frame([], b""),
        frame([], b"x"),
        frame([1], b""),
        frame([1], b"xy"),
        frame([2], b"x"),
        frame([0, 1], b"x"),
        frame([4 * MIB + 1], bytes(4 * MIB + 1)),
        frame([4 * MIB, 4 * MIB, 1], bytes(8 * MIB + 1)),
        frame([(1 << 32) - 1], b"x"),
        weights_pb2.WriteChunksRequest(header=weights_pb2.WriteChunksHeader(upload_id="u")).SerializeToString(),
        b"",
        b"\x12",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x12\x05\x0a\x7f\x01\x12\x00",
        b"garbage",
    ],
)
def test_what_is_no_frame_is_refused(message: bytes) -> None:
    with pytest.raises(FrameInvalid):
        bulk_frames.parse_frame(message)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_frame_or_refused(noise: bytes) -> None:
    for message in (noise, b"\x12" + bytes([len(noise)]) + noise):
        try:
            parsed = bulk_frames.parse_frame(message)
        except FrameInvalid:
            continue
        expected = weights_pb2.WriteChunksRequest.FromString(message).frame
        assert (list(parsed.lengths), bytes(parsed.data)) == (list(expected.lengths), expected.data)


@given(st.binary(max_size=300), st.sampled_from(["", "text/plain"]))
def test_a_body_is_sliced_as_protobuf_parses_it(data: bytes, kind: str) -> None:
    body = httpbody_pb2.HttpBody(content_type=kind, data=data)
    message = files_pb2.PutFileRequest(body=body).SerializeToString()
    assert bytes(bulk_frames.parse_body(message)) == data


def test_a_body_with_an_extension_is_understood_too() -> None:
    body = httpbody_pb2.HttpBody(data=b"x")
    body.extensions.add().type_url = "a"
    assert bytes(bulk_frames.parse_body(files_pb2.PutFileRequest(body=body).SerializeToString())) == b"x"


def test_a_message_of_tiny_fields_is_refused_at_once() -> None:
    """Read one by one in a loop, 64 MiB of them would keep every thread of the service waiting for half a minute."""
    many = 8 << 20
    lengths = b"\x0a" + varint(many) + b"\x01" * many
    began = time.process_time()
    for data in (b"\x12\x01x", b"\x12" + varint(MIB) + bytes(MIB)):
        content = lengths + data
        for message in (
            b"\x12" + varint(len(content)) + content,
            b"\x12" + varint(len(data + lengths)) + data + lengths,
        ):
            with pytest.raises(FrameInvalid):
                bulk_frames.parse_frame(message)
    with pytest.raises(DecodeError):
        bulk_frames.parse_commit(b"\x08\x00" * (many // 2))
    assert time.process_time() - began < 2


def test_a_frame_has_a_hundred_thousand_chunks_at_most() -> None:
    most = bulk_frames.MAX_CHUNKS
    assert len(bulk_frames.parse_frame(frame([1] * most, bytes(most))).lengths) == most
    with pytest.raises(FrameInvalid):
        bulk_frames.parse_frame(frame([1] * (most + 1), bytes(most + 1)))


def varint(number: int) -> bytes:
    return bulk_frames._tag(0, number)[1:]


@given(st.lists(st.binary(max_size=50)), st.integers(1, 60))
def test_groups_hold_the_same_bytes(pieces: list[bytes], size: int) -> None:
    groups = [b"".join(group) for group in bulk_frames.grouped(map(memoryview, pieces), size)]
    assert b"".join(groups) == b"".join(pieces)
    assert all(len(group) == size for group in groups[:-1])
    assert all(groups)


@given(st.lists(st.binary(max_size=300)))
def test_what_is_written_by_hand_is_protobuf(pieces: list[bytes]) -> None:
    views = [memoryview(piece) for piece in pieces]
    whole = b"".join(pieces)
    assert weights_pb2.ReadFileResponse.FromString(bulk_frames.encode_data(views)).data == whole
    first = httpbody_pb2.HttpBody.FromString(bulk_frames.encode_body(views, first=True))
    assert (first.content_type, first.data) == ("application/octet-stream", whole)
    assert httpbody_pb2.HttpBody.FromString(bulk_frames.encode_body(views, first=False)).data == whole


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("frames")) as made:
        yield made


def test_a_stream_that_turns_hostile_leaves_nothing_on_disk(running: Installation) -> None:
    upload = running.admin.create("hostile").upload_id
    good = weights_pb2.ChunkFrame(lengths=[5 * 100_000], data=noise(1, 500_000))
    for bad in (
        weights_pb2.ChunkFrame(lengths=[2], data=b"x"),
        weights_pb2.ChunkFrame(lengths=[0], data=b""),
        weights_pb2.ChunkFrame(lengths=[5 * MIB], data=bytes(5 * MIB)),
        weights_pb2.ChunkFrame(lengths=[3 * MIB] * 3, data=bytes(9 * MIB)),
    ):
        with refused(Code.INVALID_ARGUMENT, "FRAME_INVALID"):
            running.admin.write_frames(upload, [good, bad])
    assert running.stored() == []
    assert running.admin.write(upload, [b"still fine"]).chunks_received == 1


def test_the_first_message_is_the_header(running: Installation) -> None:
    request = weights_pb2.WriteChunksRequest(frame=weights_pb2.ChunkFrame(lengths=[1], data=b"x"))
    with refused(Code.INVALID_ARGUMENT, "FRAME_INVALID"):
        running.admin.call(running.admin.weights.WriteChunks, iter([request]))


def test_a_second_header_is_refused(running: Installation) -> None:
    upload = running.admin.create("headers").upload_id
    header = weights_pb2.WriteChunksHeader(manager_id="default", model_name=MODEL, upload_id=upload)
    request = weights_pb2.WriteChunksRequest(header=header)
    with refused(Code.INVALID_ARGUMENT, "FRAME_INVALID"):
        running.admin.call(running.admin.weights.WriteChunks, iter([request, request]))


def test_a_stream_without_frames_is_fine(running: Installation) -> None:
    upload = running.admin.create("nothing").upload_id
    assert running.admin.write(upload, []).chunks_received == 0
