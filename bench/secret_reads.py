"""P7: a secret is read, directly and through the gateway, beside OpenBao's KV engine with raft and a file audit.

Every read is authorized and stands in the audit trail, on both sides. Directly, ours carries the identity token that
the gateway's check makes of an API key, and OpenBao's a token of a policy for that one secret.
"""

import http.client
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc

from bench.calls import identity
from bench.figures import Row
from bench.openbao import openbao
from strongroom import Client
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc
from tests.stack import RunningStack

_CONNECTIONS = (1, 32)
# Seconds of one round; an identity token lives for 30 at least.
_SECONDS = 4.0
_NAME = "bench/db"
_DATA = {"user": "scorer", "password": "correct horse battery staple", "host": "db.internal"}
_METHOD = "/strongroom.secrets.v1.SecretService/GetSecret"

# Opens a connection; what it yields reads the secret once.
Reader = Callable[[ExitStack], Callable[[], object]]


def measure(folder: Path, runs: int) -> list[Row]:
    """Measures the three ways in turn, `runs` times, at one connection and at 32: reads a second."""
    with (
        RunningStack(folder / "secrets", STRONGROOM_CALLER_WORKERS=str(max(_CONNECTIONS))) as stack,
        openbao(folder / "openbao") as bao,
    ):
        with Client(stack.url, api_key=stack.admin_key) as client:
            client.secrets.put(_NAME, _DATA)
        bao.call("POST", f"kv/data/{_NAME}", {"data": _DATA})
        token, direct = bao.reader(_NAME), f"127.0.0.1:{stack.state['ports']['secrets']}"
        key: list[tuple[str, str]] = [("x-api-key", stack.admin_key)]
        rates: dict[tuple[str, int], list[float]] = {}
        for _ in range(runs):
            ways: dict[str, Reader] = {
                "direct": _ours(direct, identity(stack, _METHOD)),
                "gateway": _ours(stack.target, key),
                "openbao": _openbao(bao.port, token),
            }
            for way, reader in ways.items():
                for connections in _CONNECTIONS:
                    rates.setdefault((way, connections), []).append(_round(reader, connections))
    return _rows(rates)


def _rows(rates: dict[tuple[str, int], list[float]]) -> list[Row]:
    rows: list[Row] = []
    for connections in _CONNECTIONS:
        theirs = statistics.median(rates["openbao", connections])
        at = f"{connections} connection{'s' * (connections > 1)}"
        for way in ("direct", "gateway"):
            ours = statistics.median(rates[way, connections])
            target = way == "direct" and connections > 1
            figure = f"{ours / theirs:.2f} × OpenBao ({ours:.0f} of {theirs:.0f} reads/s)"
            met = ours >= 0.5 * theirs if target else None
            rows.append(Row("P7", f"read a secret, {way}, {at}", figure, "≥ 0.5 ×" if target else "beside it", met))
    return rows


def _round(reader: Reader, connections: int) -> float:
    """Reads a second that so many connections make, one after the other each, in `_SECONDS`."""
    counts = [0] * connections
    ready = threading.Barrier(connections)

    def work(number: int) -> None:
        with ExitStack() as stack:
            read = reader(stack)
            read()
            ready.wait(30)
            ends = time.perf_counter() + _SECONDS
            while time.perf_counter() < ends:
                read()
                counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / _SECONDS


def _ours(target: str, metadata: list[tuple[str, str]]) -> Reader:
    request = secrets_pb2.GetSecretRequest(name=_NAME)

    def connect(stack: ExitStack) -> Callable[[], object]:
        # A pool of its own: channels to one target would share a connection.
        channel = stack.enter_context(grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]))
        stub = secrets_pb2_grpc.SecretServiceStub(channel)
        return lambda: stub.GetSecret(request, metadata=metadata, timeout=10)

    return connect


def _openbao(port: int, token: str) -> Reader:
    def connect(stack: ExitStack) -> Callable[[], object]:
        connection = stack.enter_context(_connection(port))

        def read() -> object:
            connection.request("GET", f"/v1/kv/data/{_NAME}", headers={"X-Vault-Token": token})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"OpenBao answers {answer.status}")
            return content

        return read

    return connect


@contextmanager
def _connection(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        yield connection
    finally:
        connection.close()
