"""`strongroom probe`: asks the part that runs in the same container whether it is healthy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strongroom.certificates import CertificateError, read_pair
from strongroom.local.contract import SERVICES
from strongroom.local.questions import Edge, health
from strongroom.local.tls import Sources, pki_of

PARTS = ("gateway", *SERVICES)
_SECONDS = 4.0


def is_healthy(part: str, environment: Mapping[str, str]) -> bool:
    """Whether the part says so. Raises StartError or ValueError if the environment does not say where it listens."""
    try:
        return _gateway(environment) if part == "gateway" else _service(part, environment)
    except CertificateError:
        return False


def _gateway(environment: Mapping[str, str]) -> bool:
    host = environment.get("STRONGROOM_GATEWAY_HOST") or "127.0.0.1"
    port = int(environment.get("STRONGROOM_GATEWAY_PORT") or 8080)
    files = Sources.read(environment, pki_of(environment)).edge
    shown = [read_pair(*files).fingerprint] if files else None
    return health(Edge(host, port, shown))[0] == 200


def _service(name: str, environment: Mapping[str, str]) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    port = environment.get(f"STRONGROOM_{name.upper()}_LISTEN", "").rpartition(":")[2]
    if not port.isdecimal():
        raise ValueError(f"STRONGROOM_{name.upper()}_LISTEN is not HOST:PORT")
    address, folder = f"127.0.0.1:{port}", environment.get("STRONGROOM_PKI_DIR")
    with _encrypted(address, name, Path(folder)) if folder else grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _encrypted(address: str, name: str, folder: Path) -> Any:
    """With the part's own certificate: none but parts are let in."""
    from services.shared.certificates import Certificates, secure_channel

    return secure_channel(address, name, Certificates(folder, name).current(), [])
