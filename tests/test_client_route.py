"""The way of bulk streams past the gateway: when it is taken, and what happens when it fails."""

import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from strongroom import bulk
from strongroom.client import Client
from strongroom.client.models import Models
from strongroom.connection import LONG_DEADLINE, Connection
from strongroom.errors import Unavailable
from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2, weights_pb2_grpc
from strongroom.route import _IDENTITY_HEADER, SOCKET_NAME, _is_loopback, _is_ours
from tests.models_installation import installation
from tests.stack import RunningStack, Stack

MIB = 1 << 20


def test_streams_of_the_same_user_pass_the_gateway_by(stack: Stack) -> None:
    connection = Connection(stack.url, api_key=stack.admin_key)
    stub = weights_pb2_grpc.WeightsServiceStub(connection.channel)
    route = connection.call(stub.GetRoute, weights_pb2.GetRouteRequest())
    assert _is_ours(route.socket)
    assert Path(route.socket).stat().st_mode & 0o777 == 0o600
    assert stack.admin_key not in route.identity
    assert route.identity not in repr(connection.__dict__)


def test_the_socket_lets_nobody_in_without_an_identity(stack: Stack) -> None:
    connection = Connection(stack.url, api_key=stack.admin_key)
    stub = weights_pb2_grpc.WeightsServiceStub(connection.channel)
    route = connection.call(stub.GetRoute, weights_pb2.GetRouteRequest())
    request = weights_pb2.ReadFileRequest(manager_id="default", model_name="m", version="v1", path="f")
    with grpc.insecure_channel(f"unix:{route.socket}") as channel:
        for metadata in ([], [("x-api-key", stack.admin_key)], [("x-strongroom-identity", route.identity + "x")]):
            with pytest.raises(grpc.RpcError) as refused:
                list(bulk.read_file(channel)(request, metadata=metadata, timeout=10))
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_pass_opens_the_socket_alone(tmp_path: Path) -> None:
    """At the service's port, which every user of the machine reaches, it would lead past the gateway's limits."""
    (tmp_path / "way").mkdir(mode=0o700)
    way = str(tmp_path / "way" / SOCKET_NAME)
    with (
        installation(tmp_path) as running,
        running.models(way) as address,
        grpc.insecure_channel(address) as port,
        grpc.insecure_channel(f"unix:{way}") as way_in,
    ):
        running.admin.push("v1", {"f": b"x"})
        [(_, token)] = running.admin.metadata
        ask = weights_pb2_grpc.WeightsServiceStub(port).GetRoute
        metadata = [*running.admin.metadata, ("x-forwarded-for", "127.0.0.1")]
        identity = ask(weights_pb2.GetRouteRequest(), metadata=metadata, timeout=10).identity
        assert token not in identity
        request = weights_pb2.ReadFileRequest(manager_id="default", model_name="scorer", version="v1", path="f")
        claimed = [(_IDENTITY_HEADER, identity), ("x-forwarded-for", "203.0.113.7")]
        assert len(list(bulk.read_file(way_in)(request, metadata=claimed, timeout=10))) == 1
        for channel, presented in ((port, identity), (way_in, token)):
            with pytest.raises(grpc.RpcError) as refused:
                list(bulk.read_file(channel)(request, metadata=[(_IDENTITY_HEADER, presented)], timeout=10))
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    with closing(sqlite3.connect(tmp_path / "db" / "strongroom-models.db")) as connection:
        events = connection.execute("SELECT outcome, address FROM audit_events WHERE method LIKE '%ReadFile'")
        assert ("allowed", "") in events.fetchall(), "an address was believed that only the gateway may say"


def test_the_socket_serves_bulk_streams_alone(stack: Stack) -> None:
    """Of other methods the gateway counts every call."""
    connection = Connection(stack.url, api_key=stack.admin_key)
    stub = weights_pb2_grpc.WeightsServiceStub(connection.channel)
    route = connection.call(stub.GetRoute, weights_pb2.GetRouteRequest())
    metadata = [(_IDENTITY_HEADER, route.identity)]
    with grpc.insecure_channel(f"unix:{route.socket}") as channel:
        for method, request in (
            (weights_pb2_grpc.WeightsServiceStub(channel).GetRoute, weights_pb2.GetRouteRequest()),
            (models_pb2_grpc.ModelServiceStub(channel).ListModels, models_pb2.ListModelsRequest(manager_id="default")),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                method(request, metadata=metadata, timeout=10)
            assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
        missing = weights_pb2.ReadFileRequest(manager_id="default", model_name="absent", version="v1", path="f")
        with pytest.raises(grpc.RpcError) as refused:
            list(bulk.read_file(channel)(missing, metadata=metadata, timeout=10))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_stale_socket_is_replaced_and_another_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "way").mkdir(mode=0o700)
    way = tmp_path / "way" / SOCKET_NAME
    with socket.socket(socket.AF_UNIX) as left_by_a_crash:
        left_by_a_crash.bind(str(way))
    with installation(tmp_path) as running:
        with running.models(str(way)):
            assert _is_ours(str(way))
            assert way.stat().st_mode & 0o777 == 0o600
        way.unlink(missing_ok=True)
        way.write_text("a file of somebody's")
        with pytest.raises(RuntimeError), running.models(str(way)):
            pass
        assert way.read_text() == "a file of somebody's"
        way.parent.chmod(0o755)
        with pytest.raises(PermissionError, match="chmod 700"), running.models(str(way)):
            pass


@pytest.mark.parametrize("url", ["http://10.0.0.1:8080", "https://models.example.com", "http://[2001:db8::1]:80"])
def test_a_server_elsewhere_names_no_socket_of_this_machine(url: str) -> None:
    assert not _is_loopback(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:80"])
def test_loopback_is_this_machine(url: str) -> None:
    assert _is_loopback(url)


def test_only_a_socket_of_ours_in_a_folder_of_ours_is_entered(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    good, other, plain = tmp_path / SOCKET_NAME, tmp_path / "docker.sock", tmp_path / "sub" / SOCKET_NAME
    plain.parent.mkdir(mode=0o700)
    plain.touch()
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.bind(str(good))
        second.bind(str(other))
        assert _is_ours(str(good))
        for path in (other, plain, tmp_path / "absent" / SOCKET_NAME, Path(SOCKET_NAME)):
            assert not _is_ours(str(path))
        assert not _is_ours(f"{good}\0")
        tmp_path.chmod(0o755)
        assert not _is_ours(str(good))


def test_a_route_that_fails_is_left_for_the_gateway(stack: Stack) -> None:
    connection = Connection(stack.url, api_key=stack.admin_key)
    connection.route._way()
    connection.route._identity = "forged"
    request = weights_pb2.ReadFileRequest(manager_id="default", model_name="absent", version="v1", path="f")
    stream = connection.route.begin(bulk.read_file, request, LONG_DEADLINE)
    with pytest.raises(Unavailable) as lost:
        list(stream.answers())
    assert lost.value.reason == "ROUTE_LOST"
    assert connection.route._way()[0] is None


@pytest.mark.slow
@pytest.mark.row("B3")
def test_push_and_pull_outlive_a_killed_service(tmp_path: Path) -> None:
    """Past the gateway as through it: the models service is killed in the midst of either."""
    content = os.urandom(192 * MIB)
    (tmp_path / "w.bin").write_bytes(content)
    with RunningStack(tmp_path / "data") as stack:
        _outlives(stack, lambda models, report: models.push("m", tmp_path / "w.bin", version="v1", progress=report))
        _outlives(stack, lambda models, report: models.pull("m", tmp_path / "copy.bin", version="v1", progress=report))
    assert (tmp_path / "copy.bin").read_bytes() == content


def _outlives(stack: Stack, transfer: Callable[[Models, Callable[[Any], None]], object]) -> None:
    """Does the transfer, and kills the models service once 64 MiB of it are done."""
    far = threading.Event()
    killed = stack.state["pids"]["models"]

    def report(progress: Any) -> None:
        if progress.done > 64 * MIB:
            far.set()

    def kill() -> None:
        far.wait(60)
        os.kill(killed, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with Client(stack.url, api_key=stack.admin_key) as client:
        assert client._connection.route._way()[0] is not None
        transfer(client.models, report)
    killer.join()
    assert stack.state["pids"]["models"] != killed


def test_who_calls_from_elsewhere_is_told_no_way(tmp_path: Path) -> None:
    """It could not enter the socket, and the identity is for services: it would lead past the gateway's limits."""
    (tmp_path / "way").mkdir(mode=0o700)
    way = str(tmp_path / "way" / SOCKET_NAME)
    with (
        installation(tmp_path) as running,
        running.models(way) as address,
        grpc.insecure_channel(address) as channel,
    ):
        ask = partial(weights_pb2_grpc.WeightsServiceStub(channel).GetRoute, weights_pb2.GetRouteRequest())
        metadata = running.admin.metadata
        assert ask(metadata=[*metadata, ("x-forwarded-for", "127.0.0.1")], timeout=10).identity
        nowhere = ("0.0.0.0", "::", "255.255.255.255", "nonsense", "")
        for seen in ("10.0.0.9", "127.0.0.1, 10.0.0.9", "::1,2001:db8::1", *nowhere):
            answer = ask(metadata=[*metadata, ("x-forwarded-for", seen)], timeout=10)
            assert answer == weights_pb2.GetRouteResponse()
