"""Chunks: the same however a stream arrives, unmoved by a longer header, and the file's own bytes whatever it says."""

import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom import chunking
from strongroom.chunking import MAX_CHUNK, MIN_CHUNK, Chunker, chunk_file, digest

_RANDOM = random.Random(7).randbytes(20 << 20)
_LARGE = 3_000_000
_few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _pieces(name: str, slices: Iterable[bytes | memoryview]) -> list[bytes]:
    chunker = Chunker(name)
    pieces = [digest(chunk) for piece in slices for chunk in chunker.feed(piece)]
    return pieces + [digest(chunk) for chunk in chunker.finish()]


def _chunks(name: str, data: bytes) -> list[bytes]:
    chunker = Chunker(name)
    return [*map(bytes, chunker.feed(data)), *map(bytes, chunker.finish())]


def _safetensors(tensors: dict[str, bytes], note: str = "") -> bytes:
    header: dict[str, object] = {"__metadata__": {"note": note}}
    position = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [position, position + len(data)]}
        position += len(data)
    return _with_header(json.dumps(header).encode(), b"".join(tensors.values()))


def _with_header(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


@_few
@given(sizes=st.lists(st.integers(1, 6 << 20), min_size=1, max_size=30), safetensors=st.booleans())
def test_cuts_do_not_depend_on_how_the_stream_is_sliced(sizes: list[int], safetensors: bool, tmp_path: Path) -> None:
    name = "model.safetensors" if safetensors else "weights.bin"
    tensors = {"a": _RANDOM[:_LARGE], "b": _RANDOM[_LARGE : 4 * _LARGE], "c": _RANDOM[4 * _LARGE :]}
    data = _safetensors(tensors) if safetensors else _RANDOM
    (tmp_path / "file").write_bytes(data)
    slices, position = [], 0
    while position < len(data):
        size = sizes[len(slices) % len(sizes)] + 4096
        slices.append(memoryview(data)[position : position + size])
        position += size
    assert _pieces(name, slices) == [digest(chunk) for chunk in chunk_file(tmp_path / "file", name)]


@pytest.mark.parametrize("size", [0, 1, 100, MIN_CHUNK, MAX_CHUNK, chunking._STREAM_WINDOW, chunking._FILE_WINDOW])
def test_chunks_put_together_are_the_file(size: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(_RANDOM[:size])
    chunks = list(chunk_file(tmp_path / "file", "file"))
    assert b"".join(chunks) == _RANDOM[:size]
    assert list(map(bytes, chunks)) == _chunks("file", _RANDOM[:size])
    assert all(MIN_CHUNK <= len(chunk) <= MAX_CHUNK for chunk in chunks[:-1])


def test_monotonous_data_is_cut_at_the_maximum() -> None:
    assert [len(chunk) for chunk in _chunks("zeros", bytes(9 << 20))] == [MAX_CHUNK, MAX_CHUNK, 1 << 20]


def test_insertion_changes_only_the_chunks_around_it() -> None:
    before, after = _chunks("x", _RANDOM), _chunks("x", _RANDOM[: 10 << 20] + b"inserted" + _RANDOM[10 << 20 :])
    assert len(set(after) - set(before)) <= 2


def test_longer_header_shifts_no_chunk_of_a_large_tensor() -> None:
    tensors = {"small": _RANDOM[:1000], "a": _RANDOM[1000:_LARGE], "b": _RANDOM[_LARGE : 5 * _LARGE]}
    before = _chunks("m.safetensors", _safetensors(tensors))
    after = _chunks("m.safetensors", _safetensors(tensors, note="fine-tuned " * 500))
    assert before[1:] == after[1:]
    assert before[0] != after[0]


def test_changed_tensor_leaves_the_others_alone() -> None:
    tensors = {name: _RANDOM[index * _LARGE : (index + 1) * _LARGE] for index, name in enumerate("abcde")}
    before = _chunks("m.safetensors", _safetensors(tensors))
    after = _chunks("m.safetensors", _safetensors({**tensors, "c": _RANDOM[-_LARGE:]}))
    for name in "abde":
        inside = [chunk for chunk in before if chunk in tensors[name]]
        assert b"".join(inside) == tensors[name]
        assert set(inside) <= set(after)


_OFFSETS = {
    "overlapping": [[0, _LARGE], [_LARGE - 1, 2 * _LARGE]],
    "negative": [[-5, _LARGE]],
    "reversed": [[_LARGE, 0]],
    "fractions": [[0.0, 1e6]],
    "booleans": [[False, True]],
    "one number": [[0]],
    "three numbers": [[0, 1, 2]],
    "no list": [7],
    "texts": [["0", "1000000"]],
    "mixed": [[0, _LARGE], ["a", "b"]],
}


def _bad_offsets(spans: list[object]) -> bytes:
    return json.dumps({str(index): {"data_offsets": span} for index, span in enumerate(spans)}).encode()


_HEADERS = {
    **{name: _bad_offsets(spans) for name, spans in _OFFSETS.items()},
    "not JSON": b'{"a": ',
    "not UTF-8": b'{"\xff": 1}',
    "a list": b"[1, 2]",
    "deep": b"[" * 100_000,
    "long number": b'{"a":{"data_offsets":[0,' + b"9" * 10_000 + b"]}}",
    "no offsets": b'{"a": {}}',
    "no object": b'{"a": null}',
    "empty": b"",
}


@pytest.mark.parametrize("header", _HEADERS.values(), ids=_HEADERS.keys())
def test_hostile_header_falls_back_to_plain_chunking(header: bytes) -> None:
    data = _with_header(header, _RANDOM[: 6 << 20])
    assert _chunks("m.safetensors", data) == _chunks("plain", data)


@pytest.mark.parametrize("length", [chunking.MAX_HEADER + 1, 1 << 63, (1 << 64) - 1, 10 << 20])
def test_header_of_impossible_length_falls_back_to_plain_chunking(length: int) -> None:
    data = length.to_bytes(8, "little") + _RANDOM[: 6 << 20]
    assert _chunks("m.safetensors", data) == _chunks("plain", data)


def test_tensor_beyond_the_end_of_the_file_is_never_reached() -> None:
    data = _with_header(_bad_offsets([[0, _LARGE], [1 << 60, 1 << 61]]), _RANDOM[: 6 << 20])
    assert b"".join(_chunks("m.safetensors", data)) == data


@_few
@given(header=st.binary(max_size=300), length=st.integers(0, 400))
def test_any_header_yields_the_files_own_bytes(header: bytes, length: int) -> None:
    data = length.to_bytes(8, "little") + header + _RANDOM[: 1 << 20]
    assert b"".join(_chunks("m.safetensors", data)) == data


def test_file_that_is_read_in_small_pieces_is_cut_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(_RANDOM)
    whole = [digest(chunk) for chunk in chunk_file(tmp_path / "file", "file")]
    read = chunking.os.pread
    monkeypatch.setattr(chunking.os, "pread", lambda file, size, offset: read(file, min(size, 5 << 20), offset))
    assert [digest(chunk) for chunk in chunk_file(tmp_path / "file", "file")] == whole
