"""Every method of `AsyncClient` makes the calls that the same one of `Client` makes, and fails as it does."""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from strongroom import AsyncClient, Client
from strongroom.connection import DEADLINE, LONG_DEADLINE
from strongroom.errors import StrongroomError

# What needs AWS, and what makes no calls.
LEFT_OUT = {"tokens.act_as_aws", "providers.at"}
Outcome = tuple[object, ...]


class Recorder(grpc.GenericRpcHandler):
    """A server that writes down what it is asked, and has nothing. `deadlines` are the seconds it had, each time."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[bytes]]] = []
        self.deadlines: list[float] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            remaining = context.time_remaining()
            self.deadlines.append(math.inf if remaining is None else remaining)
            self.calls.append((details.method, list(requests)))
            status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="There is nothing here.")
            status.details.add().Pack(error_details_pb2.ErrorInfo(reason="NOTHING_HERE"))
            context.abort_with_status(rpc_status.to_status(status))
            yield b""

        return grpc.stream_stream_rpc_method_handler(refuse)


@contextmanager
def recording() -> Iterator[tuple[str, Recorder]]:
    recorder = Recorder()
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[recorder])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", recorder
    finally:
        server.stop(None).wait()


def methods() -> list[str]:
    with Client() as client:
        parts = [name for name in vars(client) if not name.startswith("_")]
        found = [f"{part}.{name}" for part in parts for name in dir(getattr(client, part)) if not name.startswith("_")]
    return [name for name in found if name not in LEFT_OUT]


def arguments(method: Callable[..., object], folder: Path) -> dict[str, Any]:
    """Something for every parameter that must be given."""
    hints = get_type_hints(method)
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            given[name] = _something(name, hints[name], folder)
    return given


def _something(name: str, kind: Any, folder: Path) -> Any:
    if name == "source":
        return folder / "source.bin"
    if name == "destination":
        return folder / "destination"
    if isinstance(kind, type) and issubclass(kind, Message):
        return kind()
    if "Mapping" in str(kind):
        return {"a": 1.0 if "float" in str(kind) else "x"}
    return 1 if kind is int else [] if "Iterable" in str(kind) else "x"


def outcome(error: StrongroomError | None, value: object) -> Outcome:
    return (type(error), error.reason, error.message) if error is not None else (str(value),)


def asked(client: Client, name: str, folder: Path) -> Outcome:
    part, _, method = name.partition(".")
    call = getattr(getattr(client, part), method)
    try:
        answer = call(**arguments(call, folder))
        return outcome(None, list(answer) if inspect.isgenerator(answer) else answer)
    except StrongroomError as error:
        return outcome(error, None)


async def awaited(client: AsyncClient, name: str, folder: Path) -> Outcome:
    part, _, method = name.partition(".")
    call = getattr(getattr(client, part), method)
    try:
        answer = call(**arguments(call, folder))
        if inspect.isasyncgen(answer):
            return outcome(None, [each async for each in answer])
        assert isinstance(answer, Awaitable), name
        return outcome(None, await answer)
    except StrongroomError as error:
        return outcome(error, None)


@pytest.mark.row("S3.7")
def test_every_method_makes_the_same_calls(tmp_path: Path) -> None:
    (tmp_path / "source.bin").write_bytes(b"source")
    made: dict[str, Outcome] = {}
    with recording() as (url, recorder):

        async def compare() -> None:
            async with AsyncClient(url, api_key="sr_x", direct=False) as client:
                for name in methods():
                    recorder.calls.clear()
                    told = await awaited(client, name, tmp_path)
                    assert (told, *recorder.calls) == made[name], name

        with Client(url, api_key="sr_x", direct=False) as client:
            for name in methods():
                recorder.calls.clear()
                made[name] = (asked(client, name, tmp_path), *recorder.calls)
        asyncio.run(compare())
    silent = {name for name, (_, *calls) in made.items() if not calls}
    # Nothing goes on that could be waited for, and nobody is signed in.
    assert silent <= {"rotation.finished", "secret_rotation.finished", "sessions.sign_out"}
    assert len(made) > 100
    # As docs/clients.md says: of calls that move or read weights an hour, of all others half a minute.
    assert {_bound(seconds) for seconds in recorder.deadlines} == {DEADLINE, LONG_DEADLINE}


def _bound(seconds: float) -> float:
    """The deadline that the server was told as so many seconds: gRPC rounds them, and some have passed."""
    return next((bound for bound in (DEADLINE, LONG_DEADLINE) if bound / 2 < seconds < bound * 1.1), seconds)
