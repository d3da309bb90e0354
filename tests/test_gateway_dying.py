"""A service that dies behind the headers of its answer: what the gateway says then is documented as well."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.stack import STRONGROOM, free_port, inherited

# As much of auth as begins an answer.
_DYING = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from strongroom.auth.v1 import info_pb2_grpc

class Dying(info_pb2_grpc.InfoServiceServicer):
    def GetHealth(self, request, context):
        context.send_initial_metadata(())
        time.sleep(0.3)
        os._exit(0)

server = grpc.server(ThreadPoolExecutor(4))
servicer = health.HealthServicer()
servicer.set("", health_pb2.HealthCheckResponse.SERVING)
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
info_pb2_grpc.add_InfoServiceServicer_to_server(Dying(), server)
assert server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
print("ready", flush=True)
server.wait_for_termination()
"""


@pytest.fixture(name="addresses")
def _addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Ports of a gateway and of the service behind it, which does not run yet."""
    port, behind = free_port(), free_port()
    folder = tmp_path_factory.mktemp("gateway")
    found_at = {f"STRONGROOM_{name}_ADDR": f"127.0.0.1:{behind}" for name in ("AUTH", "MODELS", "SECRETS")}
    environment = inherited() | found_at | {"STRONGROOM_GATEWAY_PORT": str(port), "STRONGROOM_RATE_LIMIT": "off"}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([str(STRONGROOM), "gateway"], env=environment, cwd=folder, stdout=log, stderr=log) as gateway,
    ):
        try:
            yield port, behind
        finally:
            gateway.terminate()


@pytest.fixture
def port(addresses: tuple[int, int]) -> Iterator[int]:
    """The gateway's; the service behind it will die at its first call."""
    port, behind = addresses
    command = [sys.executable, "-c", _DYING, str(behind)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=inherited()) as service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline() == b"ready\n"
            yield port
        finally:
            service.kill()


def test_over_rest_it_is_a_problem_document(port: int) -> None:
    problem = _ask(port)
    assert (problem["status"], problem["reason"]) == (503, "UNAVAILABLE")
    assert problem["type"] == "urn:strongroom:error:unavailable"
    assert problem["instance"] == "/health"
    assert problem["status_code"] == 503
    assert problem["request_id"]


def _ask(port: int) -> dict[str, object]:
    """The answer of a service that had begun one, as soon as the gateway has found it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection, suppress(OSError):
            connection.request("GET", "/health")
            answer = connection.getresponse()
            # Answers that have passed the filters differ by website; those are about a service that is not found yet.
            if answer.getheader("vary") is None:
                assert answer.getheader("content-type") == "application/problem+json"
                return dict(json.loads(answer.read()))
        time.sleep(0.05)
    raise AssertionError("there was no such answer")
