"""What stands behind the gateway, in Envoy's words."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strongroom.local.authorization import CHECK
from strongroom.local.contract import SERVICES
from strongroom.local.tls import GatewayTls

# Auth four times more, for whoever has no credential: one kind of request cannot keep out the others, and none of them
# whoever has a credential. So many at a time.
PUBLIC = "public"
# Passwords. More than auth computes and lets wait (18): it keeps places for people whom it knows, so it must be the one
# to refuse.
SIGN_IN = "sign_in"
# Apart from them, so that a flood of passwords keeps nobody from the session that they have.
SESSIONS = "sessions"
PROTOCOLS = "protocols"
# Passwords, protocols and the four that may wait for AWS take long; together they are fewer than the threads (32) that
# serve strangers. All else takes milliseconds.
STRANGERS = {PUBLIC: 12, SIGN_IN: 20, SESSIONS: 12, PROTOCOLS: 6}

# Questions to auth at a time: each has a thread there.
CHECKS = 32

STREAM_WINDOW = 4 << 20
CONNECTION_WINDOW = 8 << 20


def clusters(
    addresses: Mapping[str, str], jwks_socket: Path, check_socket: Path | None, tls: GatewayTls
) -> list[dict[str, Any]]:
    """One for each service, those of strangers, and those of sockets. `addresses` are host:port by service."""
    services = [_cluster(service, addresses[service], tls.upstream(service)) for service in SERVICES]
    auth = addresses["auth"], tls.upstream("auth")
    strangers = [_cluster(name, *auth, requests) for name, requests in STRANGERS.items()]
    sockets = [_socket("jwks", jwks_socket)] + ([_socket(CHECK, check_socket)] if check_socket else [])
    return [*services, *strangers, *sockets]


def _socket(name: str, path: Path) -> dict[str, Any]:
    thresholds = {"max_connections": CHECKS, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 64}
    cluster = {"connect_timeout": "1s", "circuit_breakers": {"thresholds": [thresholds]}}
    return cluster | _endpoint(name, {"pipe": {"path": str(path)}})


def _endpoint(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}}


def _cluster(name: str, address: str, tls: dict[str, Any] | None, max_requests: int = 4096) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return {
        **_endpoint(name, {"socket_address": {"address": host, "port_value": int(port)}}),
        "type": "STATIC" if _is_ip(host) else "STRICT_DNS",
        "connect_timeout": "1s",
        **({"transport_socket": tls} if tls else {}),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        "initial_stream_window_size": STREAM_WINDOW,
                        "initial_connection_window_size": CONNECTION_WINDOW,
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
