"""Int8 copies of models: as close as they say, readable by everybody's safetensors, and made of hostile files never."""

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from services.models.quantize import NotQuantizableError, Report, plan, report_in
from services.models.tensor_files import ReadRange, safetensors, tensors_of


def reader(data: bytes, piece: int = 10_000) -> ReadRange:
    def read(offset: int, length: int) -> Iterator[bytes]:
        for start in range(offset, offset + length, piece):
            yield data[start : min(start + piece, offset + length)]

    return read


def copy_of(data: bytes, path: str = "model.safetensors") -> tuple[dict[str, np.ndarray[Any, Any]], Report]:
    """The copy's tensors as everybody's library reads them, and what it says of itself."""
    made = plan(tensors_of(path, len(data), reader(data)))
    copy = b"".join(map(bytes, made.stream()))
    assert len(copy) == made.size
    _, metadata = safetensors(len(copy), reader(copy))
    report = report_in(metadata)
    assert report is not None
    return load(copy), report


def as_npz(arrays: dict[str, Any], *, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


GENERATOR = np.random.default_rng(4)
LAYERS = {
    "layer.weight": GENERATOR.normal(size=(64, 128)).astype(np.float32),
    "conv.weight": GENERATOR.normal(size=(8, 4, 3, 3)).astype(np.float32),
    "layer.bias": GENERATOR.normal(size=64).astype(np.float32),
    "steps": np.arange(10, dtype=np.int64).reshape(2, 5),
}


@pytest.mark.row("S0.12")
@pytest.mark.parametrize("kind", ["safetensors", "npz", "compressed"])
def test_the_error_is_what_the_copy_says(kind: str) -> None:
    data = save(LAYERS) if kind == "safetensors" else as_npz(LAYERS, compressed=kind == "compressed")
    copy, report = copy_of(data, "model.safetensors" if kind == "safetensors" else "model.npz")
    assert (report.tensors_quantized, report.tensors_kept) == (2, 2)
    assert set(copy) == {*LAYERS, "layer.weight.scale", "conv.weight.scale"}
    differences, values = [], []
    for name in ("layer.weight", "conv.weight"):
        original, scale = LAYERS[name], copy[f"{name}.scale"]
        assert copy[name].dtype == np.int8
        assert scale.shape == original.shape[:1]
        restored = copy[name] * scale.reshape(-1, *[1] * (original.ndim - 1))
        assert np.abs(restored - original).max() <= scale.max() / 2 * 1.001
        differences.append((restored - original).ravel())
        values.append(original.ravel())
    difference, value = (np.concatenate(parts).astype(np.float64) for parts in (differences, values))
    assert report.max_error == pytest.approx(np.abs(difference).max(), rel=1e-4)
    assert report.relative_error == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(value), rel=1e-4)
    assert report.relative_error < 0.01
    for name in ("layer.bias", "steps"):
        assert np.array_equal(copy[name], LAYERS[name])


@pytest.mark.row("S0.12")
def test_a_copy_is_about_a_quarter() -> None:
    data = save({"w": GENERATOR.normal(size=(256, 1024)).astype(np.float32)})
    assert plan(tensors_of("m.safetensors", len(data), reader(data))).size < len(data) * 0.26


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_float_in_any_order(dtype: str, order: Any) -> None:
    array = np.asarray(GENERATOR.normal(size=(20, 33)), dtype=dtype, order=order)
    copy, report = copy_of(as_npz({"w": array}), "m.npz")
    restored = copy["w"] * copy["w.scale"][:, None]
    assert np.abs(restored - array.astype(np.float64)).max() == pytest.approx(report.max_error, rel=0.01)
    assert report.relative_error < 0.01


def test_brain_floats() -> None:
    values = GENERATOR.normal(size=(16, 32)).astype(np.float32)
    upper = (values.view("<u4") >> 16).astype("<u2")
    exact = (upper.astype("<u4") << 16).view("<f4")
    header = json.dumps({"w": {"dtype": "BF16", "shape": [16, 32], "data_offsets": [0, 1024]}}).encode()
    copy, report = copy_of(struct.pack("<Q", len(header)) + header + upper.tobytes())
    assert np.abs(copy["w"] * copy["w.scale"][:, None] - exact).max() == pytest.approx(report.max_error, rel=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_tensor_with_a_value_that_is_none_stays_as_it_is(value: float) -> None:
    broken = np.ones((4, 32), np.float32)
    broken[2, 3] = value
    copy, report = copy_of(save({"broken": broken, "whole": np.ones((4, 32), np.float32)}))
    assert np.array_equal(copy["broken"], broken, equal_nan=True)
    assert (report.tensors_quantized, report.tensors_kept) == (1, 1)


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-38, 1e30, 3e38])
def test_the_smallest_and_largest_values(scale: float) -> None:
    array = (np.linspace(-1, 1, 64).reshape(2, 32) * scale).astype(np.float32)
    copy, report = copy_of(save({"w": array}))
    assert np.abs(copy["w"] * copy["w.scale"][:, None].astype(np.float64) - array).max() <= scale / 200 + 1e-44
    assert np.isfinite(report.relative_error)


@given(st.integers(1, 40), st.integers(16, 70), st.integers(0, 2**32), st.integers(1, 5000))
@settings(max_examples=40, deadline=None)
def test_any_shape_in_any_pieces(rows: int, length: int, seed: int, piece: int) -> None:
    array = np.random.default_rng(seed).normal(size=(rows, length)).astype(np.float32)
    data = save({"w": array})
    made = plan(tensors_of("x.safetensors", len(data), reader(data, piece)))
    copy = load(b"".join(map(bytes, made.stream())))
    assert np.abs(copy["w"] * copy["w.scale"][:, None] - array).max() <= copy["w.scale"].max() * 0.501


def test_large_tensors_are_never_held() -> None:
    array = np.ones((20_000, 1024), np.float32)
    data = save({"w": array})
    del array
    tracemalloc.start()
    made = plan(tensors_of("x.safetensors", len(data), reader(data, 1 << 20)))
    assert sum(len(piece) for piece in made.stream()) == made.size
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20


def refused(path: str, data: bytes) -> None:
    with pytest.raises(NotQuantizableError):
        plan(tensors_of(path, len(data), reader(data)))


def header_of(entries: Any, data: bytes = b"") -> bytes:
    header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(dtype: Any = "F32", shape: Any = (2, 32), offsets: Any = (0, 256)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.row("S0.10")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        header_of(b"not json"),
        header_of(b"[" * 100_000),
        header_of([]),
        header_of({"w": 3}),
        header_of({}),
        header_of(entry(), bytes(255)),
        header_of(entry(), bytes(257)),
        header_of(entry(offsets=(1, 257)), bytes(257)),
        header_of(entry(offsets=(0, 255)), bytes(255)),
        header_of(entry(shape=(-2, -32)), bytes(256)),
        header_of(entry(shape=(2.0, 32)), bytes(256)),
        header_of(entry(shape=(True, 64)), bytes(256)),
        header_of(entry(shape=(2**62, 2**62)), bytes(256)),
        header_of(entry(dtype="OBJECT"), bytes(256)),
        header_of(entry(dtype=["F32"]), bytes(256)),
        header_of(entry(offsets="ab"), bytes(256)),
        header_of(entry() | {"v": entry()["w"]}, bytes(256)),
        header_of(entry() | {"w.scale": entry(shape=(1, 64), offsets=(256, 512))["w"]}, bytes(512)),
        header_of(entry(dtype="F4", shape=(3,), offsets=(0, 1)), bytes(1)),
        header_of(entry(dtype="I32"), bytes(256)),
    ],
)
def test_a_broken_or_hostile_safetensors_file_has_no_copy(data: bytes) -> None:
    refused("m.safetensors", data)


class Exploit:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (pytest.fail, ("a pickle was opened",))


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def npy(header: bytes, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + length + header + data


GOOD = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 32)}\n"


@pytest.mark.row("S0.10")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        zipped({}),
        zipped({"w.npy": npy(GOOD, bytes(255))}),
        zipped({"w.npy": npy(GOOD, bytes(257))}),
        zipped({"w.npy": npy(GOOD, bytes(256))}, zipfile.ZIP_LZMA),
        zipped({"w.npy": npy(GOOD, bytes(256))}, zipfile.ZIP_BZIP2),
        zipped({"w.npy": npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n") + pickle.dumps(Exploit())}),
        zipped({"w.npy": npy(GOOD.replace(b"False", b"__import__('os').abort()"), bytes(256))}),
        zipped({"w.npy": npy(GOOD.replace(b"(2, 32)", b"(-2, -32)"), bytes(256))}),
        zipped({"w.npy": npy(GOOD + b" " * 100_000, bytes(256), b"\x02\x00")}),
        zipped({"w.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(1000)}),
        zipped({"w.npy": npy(GOOD, bytes(256), b"\x03\x00")}),
        zipped({"w.npy": npy(GOOD.replace(b"<f4", b"<M8[s]"), bytes(512))}),
        zipped({"w.npy": npy(GOOD.replace(b"<f4", b"<c8"), bytes(512))}),
        zipped({"w.npy": npy(GOOD.replace(b"(2, 32)", b"(2, 32"), bytes(256))}),
        zipped({"w.bin": b"x"}),
        zipped({"w.npy": npy(GOOD, bytes(256))})[:-30],
        zipped({"w.npy": npy(GOOD, bytes(range(256)))}, zipfile.ZIP_STORED).replace(bytes(range(256)), bytes(256)),
    ],
)
def test_a_broken_or_hostile_npz_file_has_no_copy(data: bytes) -> None:
    refused("m.npz", data)


def test_an_archive_that_unpacks_to_far_more_than_it_is_has_no_copy() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("w.npy", "w") as member:
        member.write(npy(GOOD.replace(b"(2, 32)", b"(20, 1048576)")))
        for _ in range(80):
            member.write(bytes(1 << 20))
    refused("m.npz", file.getvalue())


def test_a_directory_that_claims_to_be_huge_takes_no_memory() -> None:
    data = bytearray(zipped({"w.npy": npy(GOOD, bytes(256))}))
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<I", data, end + 12, 1 << 30)
    refused("m.npz", bytes(data) + b"")
    refused("m.npz", bytes(1 << 20) + bytes(data))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(["m.npz", "m.safetensors"]))
def test_a_changed_byte_is_refused_or_makes_another_copy(place: int, value: int, path: str) -> None:
    small = {"w": np.ones((2, 32), np.float32), "b": np.zeros(3, np.float32)}
    data = bytearray(save(small) if path == "m.safetensors" else as_npz(small))
    data[place % len(data)] = value
    try:
        made = plan(tensors_of(path, len(data), reader(bytes(data))))
        assert sum(len(piece) for piece in made.stream()) == made.size
    except NotQuantizableError:
        pass
