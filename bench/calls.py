"""P8: what the gateway costs a small call that carries an API key, beside the same call to the service itself.

Both calls are authorized: directly by the identity token that the gateway's check makes of the key.
"""

import statistics
import threading
import time
from pathlib import Path

import grpc

from bench.figures import Row
from strongroom.edge.v1 import external_auth_pb2 as edge
from strongroom.models.v1 import models_pb2, models_pb2_grpc
from tests.stack import RunningStack, Stack

_CONNECTIONS = 32
# Seconds of one round; an identity token lives for 30 at least.
_SECONDS = 4.0
_METHOD = "/strongroom.models.v1.ModelService/ListModels"

Metadata = list[tuple[str, str]]


def measure(folder: Path, runs: int) -> list[Row]:
    """Measures both ways in turn, `runs` times, at one connection and at 32."""
    gateway: dict[int, list[float]] = {1: [], _CONNECTIONS: []}
    direct: dict[int, list[float]] = {1: [], _CONNECTIONS: []}
    added: list[float] = []
    # All connections share one credential.
    with RunningStack(folder / "calls", STRONGROOM_CALLER_WORKERS=str(_CONNECTIONS)) as stack:
        service = f"127.0.0.1:{stack.state['ports']['models']}"
        for _ in range(runs):
            for connections in gateway:
                through = _round(stack.target, [("x-api-key", stack.admin_key)], connections)
                around = _round(service, identity(stack), connections)
                gateway[connections].append(len(through) / _SECONDS)
                direct[connections].append(len(around) / _SECONDS)
                if connections == 1:
                    added.append((statistics.median(through) - statistics.median(around)) * 1000)
    return [*(_row(count, gateway[count], direct[count]) for count in gateway), _added(statistics.median(added))]


def _row(connections: int, gateway: list[float], direct: list[float]) -> Row:
    ratio = statistics.median(through / around for through, around in zip(gateway, direct, strict=True))
    work = f"calls with an API key through the gateway, {connections} connection{'s' * (connections > 1)}"
    figure = f"{ratio:.2f} × direct ({statistics.median(gateway):.0f} of {statistics.median(direct):.0f} calls/s)"
    return Row("P8", work, figure, "≥ 0.5 ×", ratio >= 0.5)


def _added(milliseconds: float) -> Row:
    return Row("P8", "median added by the gateway, 1 connection", f"{milliseconds:.2f} ms", "≤ 1 ms", milliseconds <= 1)


def identity(stack: Stack, method: str = _METHOD) -> Metadata:
    """What the gateway would send the service of this method."""
    http = edge.HttpRequest(path=method, headers={"x-api-key": stack.admin_key})
    request = edge.CheckRequest(attributes=edge.AttributeContext(request=edge.Request(http=http)))
    with grpc.insecure_channel(f"127.0.0.1:{stack.state['ports']['auth']}") as channel:
        check = channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            edge.CheckRequest.SerializeToString,
            edge.CheckResponse.FromString,
        )
        header = check(request, timeout=10).ok_response.headers[0].header
    return [(header.key, header.value)]


def _round(target: str, metadata: Metadata, connections: int) -> list[float]:
    """Seconds of every call that so many connections make, one after the other each, in `_SECONDS`."""
    took: list[list[float]] = [[] for _ in range(connections)]
    ready = threading.Barrier(connections)
    callers = [threading.Thread(target=_call, args=(target, metadata, ready, samples)) for samples in took]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return [sample for samples in took for sample in samples]


def _call(target: str, metadata: Metadata, ready: threading.Barrier, took: list[float]) -> None:
    request = models_pb2.ListModelsRequest(manager_id="default", page_size=1)
    # A pool of its own: channels to one target would share a connection.
    with grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        stub.ListModels(request, metadata=metadata, timeout=10)
        ready.wait(30)
        ends = time.perf_counter() + _SECONDS
        while (started := time.perf_counter()) < ends:
            stub.ListModels(request, metadata=metadata, timeout=10)
            took.append(time.perf_counter() - started)
