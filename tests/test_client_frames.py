"""The hand-made messages of the data plane are the protobuf messages, to the byte."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from strongroom import bulk
from strongroom.models.v1 import weights_pb2 as pb


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20))
def test_a_frame_is_what_protobuf_writes(chunks: list[bytes]) -> None:
    frame = pb.ChunkFrame(lengths=[len(chunk) for chunk in chunks], data=b"".join(chunks))
    assert bulk.encode_frame(chunks) == pb.WriteChunksRequest(frame=frame).SerializeToString()


@pytest.mark.parametrize("size", [1, 127, 128, 16383, 16384, 2 << 20, 4 << 20])
def test_a_frame_of_any_length_parses(size: int) -> None:
    parsed = pb.WriteChunksRequest.FromString(bulk.encode_frame([memoryview(b"x" * size), memoryview(b"y")]))
    assert parsed.WhichOneof("message") == "frame"
    assert list(parsed.frame.lengths) == [size, 1]
    assert parsed.frame.data == b"x" * size + b"y"


def test_the_header_is_the_first_message() -> None:
    header = pb.WriteChunksHeader(manager_id="default", model_name="m", upload_id="u")
    assert pb.WriteChunksRequest.FromString(bulk.encode_header(header)).header == header


@given(st.binary(max_size=70_000))
def test_an_answer_is_taken_apart_without_a_copy(data: bytes) -> None:
    message = pb.ReadFileResponse(data=data).SerializeToString()
    assert bytes(bulk.decode_data(message)) == data
    if data:
        assert isinstance(bulk.decode_data(message), memoryview)


def test_an_answer_in_another_valid_shape_is_understood() -> None:
    twice = (
        pb.ReadFileResponse(data=b"first").SerializeToString() + pb.ReadFileResponse(data=b"last").SerializeToString()
    )
    assert bytes(bulk.decode_data(twice)) == b"last"


@given(st.binary(min_size=1, max_size=40))
def test_an_answer_is_read_as_protobuf_reads_it(message: bytes) -> None:
    try:
        expected = pb.ReadFileResponse.FromString(message).data
    except DecodeError:
        with pytest.raises(DecodeError):
            bulk.decode_data(message)
    else:
        assert bytes(bulk.decode_data(message)) == expected
