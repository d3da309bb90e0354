"""One tensor out of a file (B3): over gRPC and REST, with the Python client and on the command line."""

import json
import os
import struct
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from services.models.tensors import NotSafetensors, TensorNotFound, find
from strongroom import errors
from strongroom.client import Client
from strongroom.tensors import Tensor
from tests.stack import Stack
from tests.terminal import Terminal

_LARGE = os.urandom(3 << 20)
_SMALL = struct.pack("<6f", 1, 2, 3, 4, 5, 6)


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: Any, end: Any, dtype: Any = "U8", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


_MODEL = file_of(
    {
        "__metadata__": {"by": "us"},
        "large": entry(0, len(_LARGE)),
        "layers/0.weight": entry(len(_LARGE), len(_LARGE) + 24, "F32", [2, 3]),
        "none": entry(len(_LARGE) + 24, len(_LARGE) + 24, "F32", [0, 7]),
    },
    _LARGE + _SMALL,
)


def test_tensor_is_found_in_the_header() -> None:
    found = find("layers/0.weight", len(_MODEL), lambda start, end: _MODEL[start:end])
    assert (found.dtype, found.shape) == ("F32", (2, 3))
    assert _MODEL[found.begin : found.end] == _SMALL


@pytest.mark.parametrize("name", ["absent", "__metadata__"])
def test_tensor_that_is_not_there(name: str) -> None:
    with pytest.raises(TensorNotFound):
        find(name, len(_MODEL), lambda start, end: _MODEL[start:end])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        struct.pack("<Q", 1 << 63) + b"{}",
        struct.pack("<Q", 17 << 20) + b" " * 100,
        file_of(b"not json"),
        file_of(b"\xff"),
        file_of(b"[" * 100_000),
        file_of([1]),
        file_of({"t": 5}),
        file_of({"t": {}}),
        file_of({"t": entry(0, 9)}, b"12345678"),  # beyond the end
        file_of({"t": entry(4, 2, shape=[1])}, b"12345678"),
        file_of({"t": entry(-4, 2)}, b"12345678"),
        file_of({"t": entry(0, 1.5, shape=[1])}, b"12345678"),
        file_of({"t": entry(0, True, shape=[1])}, b"12345678"),
        file_of({"t": entry(0, 8, dtype=5)}, b"12345678"),
        file_of({"t": entry(0, 8, dtype="x" * 17)}, b"12345678"),
        file_of({"t": entry(0, 8, shape=[-1])}, b"12345678"),
        file_of({"t": entry(0, 8, shape=[1 << 63])}, b"12345678"),
        file_of({"t": entry(0, 8, shape="8")}, b"12345678"),
        file_of({"t": entry(0, 8, shape=[1] * 65)}, b"12345678"),
        file_of({"t": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8, 9]}}, b"12345678"),
    ],
)
def test_header_that_lies_is_refused(content: bytes) -> None:
    with pytest.raises(NotSafetensors):
        find("t", len(content), lambda start, end: content[start:end])


@pytest.fixture(scope="module")
def client(stack: Stack) -> Any:
    with Client(stack.url, api_key=stack.admin_key) as client:
        yield client


@pytest.fixture(scope="module")
def model(client: Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of one safetensors file and another file."""
    folder, name = tmp_path_factory.mktemp("tensors"), f"tensors-{os.urandom(4).hex()}"
    (folder / "model.safetensors").write_bytes(_MODEL)
    (folder / "config.json").write_text("{}")
    client.models.push(name, folder, version="v1")
    return name


@pytest.mark.row("B3")
def test_client_gets_a_tensor_alone(client: Client, model: str) -> None:
    tensor = client.models.tensor(model, "layers/0.weight")
    assert tensor == Tensor("layers/0.weight", "F32", (2, 3), _SMALL)
    assert client.models.tensor(model, "large", path="model.safetensors").data == _LARGE
    assert client.models.tensor(model, "none").data == b""


@pytest.mark.row("B3")
def test_client_gets_it_through_the_gateway_too(stack: Stack, model: str) -> None:
    with Client(stack.url, api_key=stack.admin_key, direct=False) as client:
        assert client.models.tensor(model, "large").data == _LARGE


def test_refusals_say_what_is_wrong(client: Client, model: str) -> None:
    with pytest.raises(errors.NotFound, match="none of this name"):
        client.models.tensor(model, "absent")
    with pytest.raises(errors.FailedPrecondition, match="no safetensors file"):
        client.models.tensor(model, "large", path="config.json")
    with pytest.raises(errors.NotFound):
        client.models.tensor(model, "large", path="absent.safetensors")


def test_tensor_is_found_by_the_index_of_several_files(client: Client, tmp_path: Path) -> None:
    name = f"shards-{os.urandom(4).hex()}"
    (tmp_path / "sub").mkdir()
    for number in (1, 2):
        content = file_of({f"t{number}": entry(0, 4)}, bytes([number]) * 4)
        (tmp_path / "sub" / f"{number}.safetensors").write_bytes(content)
    client.models.push(name, tmp_path, version="v1")
    with pytest.raises(errors.InvalidArgument, match="Name one of them"):
        client.models.tensor(name, "t2")
    index = {"weight_map": {"t1": "1.safetensors", "t2": "2.safetensors"}}
    (tmp_path / "sub" / "model.safetensors.index.json").write_text(json.dumps(index))
    client.models.push(name, tmp_path, version="v2")
    assert client.models.tensor(name, "t2").data == b"\2\2\2\2"
    with pytest.raises(errors.NotFound):
        client.models.tensor(name, "t3")


@pytest.mark.row("B3")
def test_command_writes_a_safetensors_file(stack: Stack, model: str, tmp_path: Path) -> None:
    strongroom = Terminal.of(stack)
    done = strongroom("pull", f"{model}@v1", f"{tmp_path}/", "--tensor", "layers/0.weight", "--json").json
    assert done == {"tensor": "layers/0.weight", "dtype": "F32", "shape": [2, 3], "bytes": 24}
    content = (tmp_path / "layers_0.weight.safetensors").read_bytes()
    found = find("layers/0.weight", len(content), lambda start, end: content[start:end])
    assert content[found.begin : found.end] == _SMALL
    assert strongroom("pull", model, tmp_path / "x", "--file", "model.safetensors").status == 2


def test_numpy_gets_values_and_shape() -> None:
    numpy = pytest.importorskip("numpy")
    assert Tensor("t", "F32", (2, 3), _SMALL).numpy().tolist() == [[1, 2, 3], [4, 5, 6]]
    halves = b"".join(struct.pack("<f", value)[2:] for value in (1.0, -2.5))
    assert Tensor("t", "BF16", (2,), halves).numpy().tolist() == [1.0, -2.5]
    with pytest.raises(errors.DataLoss):
        Tensor("t", "F32", (7,), _SMALL).numpy()
    with pytest.raises(errors.InvalidArgument):
        Tensor("t", "F8_E4M3", (24,), _SMALL).numpy()
    assert numpy is not None


@pytest.mark.row("B3")
def test_rest_reads_a_tensor_and_a_part_of_it(stack: Stack, model: str) -> None:
    path = f"/api/v1/managers/default/models/{model}/versions/v1/files/model.safetensors"
    assert _get(stack, f"{path}?tensor=layers/0.weight") == _SMALL
    assert _get(stack, f"{path}?tensor=large&offset=1000000&length=2000000") == _LARGE[1_000_000:3_000_000]


def _get(stack: Stack, path: str) -> bytes:
    request = urllib.request.Request(stack.url + path, headers={"x-api-key": stack.admin_key})  # noqa: S310
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - our own http URL
        content: bytes = answer.read()
    return content
