"""`strongroom prepare` and `strongroom probe`: what containers need beside the parts themselves."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from strongroom.cli.session import fail, misused, say

_PARTS = ("gateway", "auth", "models", "secrets")
_SECONDS = 4.0


def prepare(
    folder: Annotated[Path, typer.Argument(help="Where the secrets are kept.")],
    owner: Annotated[str, typer.Option(metavar="UID:GID", help="Whose they are to be; only root can say.")] = "",
    volume: Annotated[list[Path] | None, typer.Option(help="A folder to give to the owner.")] = None,
) -> None:
    """Make what is missing of the keys, passwords and certificates that docker-compose.yml mounts."""
    from strongroom.local.deployment import Deployment, Owner

    user, _, group = owner.partition(":")
    if owner and not (user.isdecimal() and group.isdecimal()):
        misused(f"{owner!r} is no UID:GID")
    deployment = Deployment(folder, datetime.now(UTC), Owner(int(user), int(group)) if owner else None)
    os.umask(0o077)
    try:
        made = deployment.make()
        deployment.volumes(volume or [])
    except OSError as error:
        fail(f"{error.filename or folder} can't be made: {error.strerror}")
    say(f"made {', '.join(made)}" if made else "everything is there")
    say(f"the administrator's key is in {folder / 'admin.key'}. Keep a copy of {folder}: without it nothing opens")


def probe(part: Annotated[str, typer.Argument(help=" | ".join(_PARTS))]) -> None:
    """Say by the exit status whether the part that runs here is healthy: for a container's health check."""
    if part not in _PARTS:
        misused(f"{part!r} is none of {', '.join(_PARTS)}")
    healthy = _gateway_is_healthy() if part == "gateway" else _service_is_healthy(part)
    if not healthy:
        fail(f"{part} is not healthy")


def _gateway_is_healthy() -> bool:
    from strongroom.local.questions import health

    host = os.environ.get("STRONGROOM_GATEWAY_HOST", "127.0.0.1")
    return health(host, int(os.environ.get("STRONGROOM_GATEWAY_PORT") or 8080))[0] == 200


def _service_is_healthy(name: str) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    port = os.environ.get(f"STRONGROOM_{name.upper()}_LISTEN", "").rpartition(":")[2]
    if not port.isdecimal():
        misused(f"STRONGROOM_{name.upper()}_LISTEN is not HOST:PORT")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
