"""What anyone may know: name, version, health."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.auth import contract
from strongroom.auth.v1 import info_pb2 as pb
from tests.auth_installation import Installation, installation, reason_of

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@contextmanager
def _reporting(state: "health_pb2.HealthCheckResponse.ServingStatus") -> Iterator[str]:
    """A server that says about itself what a models service in that state says."""
    servicer = health.HealthServicer()
    servicer.set("", state)
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_anyone_may_ask_for_name_and_version(installed: Installation) -> None:
    with installed.auth() as auth:
        answer = auth.info.GetInfo(pb.GetInfoRequest())
        assert answer.name == "Strongroom"
        assert answer.version == metadata.version("strongroom")
        assert answer.docs_url == "/docs"


def test_health_names_every_part(installed: Installation) -> None:
    with _reporting(SERVING) as models, installed.auth(models_addr=models) as auth:
        answer = auth.info.GetHealth(pb.GetHealthRequest())
        assert answer.status == "healthy"
        assert dict(answer.checks) == dict.fromkeys(("database", "auth", "models", "secrets"), "healthy")
        assert abs(answer.timestamp - installed.clock().timestamp()) < 60


def test_health_names_the_part_that_is_not_ready(installed: Installation) -> None:
    with _reporting(NOT_SERVING) as models, installed.auth(models_addr=models) as auth:
        _assert_unhealthy(auth.info, "models")


def test_health_names_the_part_that_does_not_answer(installed: Installation) -> None:
    with installed.auth(models_addr="127.0.0.1:1") as auth:
        _assert_unhealthy(auth.info, "models")


def test_reflection_describes_what_can_be_called_from_outside() -> None:
    described = contract.described_services()
    assert {"strongroom.auth.v1.ApiKeyService", "strongroom.secrets.v1.SecretService"} < set(described)
    assert "strongroom.secrets.v1.KeyService" not in described
    assert "strongroom.secrets.v1.KeyService" in contract.contract_services()


def _assert_unhealthy(info: object, part: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        info.GetHealth(pb.GetHealthRequest(), timeout=5)  # type: ignore[attr-defined]
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(caught.value) == "PART_UNHEALTHY"
    assert part in (caught.value.details() or "")
