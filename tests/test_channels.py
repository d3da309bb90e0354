"""Channels from one service to another: a replica that stands still is left for one that does not."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.shared.channels import DEADLINE, service_channel
from services.shared.tokens import ServiceIdentity
from tests.serving import make_identities, wait_healthy
from tests.stack import inherited

# As much of a service as answers: it has a process of its own, which can be stopped.
_SERVER = """
from concurrent.futures import ThreadPoolExecutor
import grpc
from grpc_health.v1 import health, health_pb2_grpc
server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.http2.max_ping_strikes", 0)])
health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"""
_CALLERS = 4


@contextmanager
def _replica() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of its own, and its address."""
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=inherited()) as process:
        try:
            assert process.stdout is not None
            address = f"127.0.0.1:{int(process.stdout.readline())}"
            wait_healthy(address)
            yield process, address
        finally:
            process.kill()


@pytest.mark.timeout(60)
def test_a_replica_that_stands_still_is_left_while_the_call_has_time_to_ask_another(tmp_path: Path) -> None:
    identity = ServiceIdentity.load("models", make_identities(tmp_path / "keys"))
    stop = threading.Event()

    def ask(channel: grpc.Channel) -> float:
        stub, slowest = health_pb2_grpc.HealthStub(channel), 0.0
        while not stop.is_set():
            began = time.monotonic()
            stub.Check(health_pb2.HealthCheckRequest())
            slowest = max(slowest, time.monotonic() - began)
        return slowest

    with (
        _replica() as (standing, first),
        _replica() as (_, second),
        service_channel(f"{first},{second}", "secrets", identity) as channel,
        ThreadPoolExecutor(_CALLERS) as threads,
    ):
        asking = [threads.submit(ask, channel) for _ in range(_CALLERS)]
        time.sleep(1)  # until both are asked, and the pings between calls with them
        standing.send_signal(signal.SIGSTOP)
        time.sleep(DEADLINE / 2)
        stop.set()
        # Each was waiting for the one that stands still, heard of no error, and waited no longer than this.
        slowest = [each.result() for each in asking]
    assert max(slowest) > 1
    assert max(slowest) < DEADLINE * 0.7
