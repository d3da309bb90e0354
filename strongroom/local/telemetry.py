"""What the gateway tells of itself, in Envoy's words: traces to a collector, as OTEL_* variables say, and metrics.

The variables are those of https://opentelemetry.io/docs/specs/otel/protocol/exporter/; the services read them as well.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from strongroom.local.errors import StartError

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PREFIX = "OTEL_EXPORTER_OTLP_"
# Where Envoy finds the collector.
CLUSTER = "telemetry"
_PORTS = {"http/protobuf": 4318, "grpc": 4317}
_SAMPLERS = {"always_on", "always_off", "traceidratio"}


@dataclass(frozen=True)
class Telemetry:
    """Where spans go. `headers` may hold a credential for the collector."""

    host: str
    port: int
    path: str
    secure: bool
    protocol: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    certificates: str
    # Percent of the traces that begin at the gateway.
    sampled: float

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Telemetry | None":
        """None if the environment asks for no traces. Raises StartError."""
        endpoint = environment.get(ENDPOINT)
        if not endpoint:
            return None
        protocol = environment.get(f"{_PREFIX}PROTOCOL") or "http/protobuf"
        if protocol not in _PORTS:
            raise StartError(f"{_PREFIX}PROTOCOL is http/protobuf or grpc.")
        parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StartError(f"{ENDPOINT} is http://HOST:PORT or https://HOST:PORT.")
        return cls(
            parts.hostname,
            parts.port or _PORTS[protocol],
            f"{parts.path.rstrip('/')}/v1/traces",
            parts.scheme == "https",
            protocol,
            tuple(_headers(environment.get(f"{_PREFIX}HEADERS", ""))),
            environment.get(f"{_PREFIX}CERTIFICATE") or ssl.get_default_verify_paths().cafile or "",
            _sampled(environment),
        )

    def tracing(self) -> dict[str, Any]:
        """The part of the connection manager."""
        config = {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "service_name": "strongroom-gateway",
            **(self._over_grpc() if self.protocol == "grpc" else self._over_http()),
        }
        return {
            "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": config},
            "random_sampling": {"value": self.sampled},
            # A span of its own for what is asked of a service: else its time and the gateway's are one.
            "spawn_upstream_span": True,
            "custom_tags": [_SHOWN_PATH],
        }

    def cluster(self) -> dict[str, Any]:
        """The collector, as Envoy finds it."""
        address = {"socket_address": {"address": self.host, "port_value": self.port}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        cluster: dict[str, Any] = {
            "name": CLUSTER,
            "type": "STRICT_DNS",
            "connect_timeout": "2s",
            "load_assignment": {"cluster_name": CLUSTER, "endpoints": endpoints},
        }
        if self.protocol == "grpc":
            model = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
            options = {"@type": f"type.googleapis.com/{model}", "explicit_http_config": {"http2_protocol_options": {}}}
            cluster["typed_extension_protocol_options"] = {model: options}
        if self.secure:
            cluster["transport_socket"] = self._tls()
        return cluster

    def _over_http(self) -> dict[str, Any]:
        uri = {
            "uri": f"{'https' if self.secure else 'http'}://{self.host}:{self.port}{self.path}",
            "cluster": CLUSTER,
            "timeout": "5s",
        }
        headers = [{"header": {"key": key, "value": value}} for key, value in self.headers]
        return {"http_service": {"http_uri": uri, "request_headers_to_add": headers}}

    def _over_grpc(self) -> dict[str, Any]:
        headers = [{"key": key, "value": value} for key, value in self.headers]
        service = {"envoy_grpc": {"cluster_name": CLUSTER}, "timeout": "5s", "initial_metadata": headers}
        return {"grpc_service": service}

    def _tls(self) -> dict[str, Any]:
        names = [{"san_type": "DNS", "matcher": {"exact": self.host}}]
        trusted = {"trusted_ca": {"filename": self.certificates}, "match_typed_subject_alt_names": names}
        model = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        context = {"@type": model, "sni": self.host, "common_tls_context": {"validation_context": trusted}}
        return {"name": "envoy.transport_sockets.tls", "typed_config": context}


# Envoy would show the URL as it came: with its query, in which somebody may have sent a credential.
_SHOWN_PATH = {
    "tag": "http.url",
    "metadata": {
        "kind": {"request": {}},
        "metadata_key": {"key": "strongroom", "path": [{"key": "path"}]},
        "default_value": "-",
    },
}


def _headers(text: str) -> list[tuple[str, str]]:
    """`key=value,key=value`, values as in URLs. Raises StartError, without what stands there."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not (key.strip() and mark) for key, mark, _ in pairs):
        raise StartError(f"{_PREFIX}HEADERS is key=value, with commas between them.")
    return [(key.strip().lower(), unquote(value.strip())) for key, _, value in pairs]


def _sampled(environment: Mapping[str, str]) -> float:
    sampler = (environment.get("OTEL_TRACES_SAMPLER") or "always_on").removeprefix("parentbased_")
    if sampler not in _SAMPLERS:
        raise StartError(f"OTEL_TRACES_SAMPLER is one of {', '.join(sorted(_SAMPLERS))}, or parentbased_ and one.")
    if sampler != "traceidratio":
        return 100.0 if sampler == "always_on" else 0.0
    try:
        ratio = float(environment.get("OTEL_TRACES_SAMPLER_ARG") or 1)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise StartError("OTEL_TRACES_SAMPLER_ARG is a share of the traces, from 0 to 1.")
    return ratio * 100


def metrics_address(listen: str, socket: Path) -> dict[str, Any]:
    """Where Envoy's metrics are read: host:port, or the socket if there is none. Raises StartError."""
    if not listen:
        return {"pipe": {"path": str(socket), "mode": 0o600}}
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise StartError("STRONGROOM_GATEWAY_METRICS_LISTEN is HOST:PORT.")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
