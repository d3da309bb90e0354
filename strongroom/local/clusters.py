"""What stands behind the gateway, in Envoy's words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strongroom import addresses
from strongroom.addresses import Address
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
    found_at: Mapping[str, str], jwks_socket: Path, admin_socket: Path, check_socket: Path | None, tls: GatewayTls
) -> list[dict[str, Any]]:
    """One for each service, those of strangers, and those of sockets. `found_at` are their addresses by service, as
    `strongroom.addresses` reads them. Raises ValueError.
    """
    replicas = {service: addresses.parse(found_at[service]) for service in SERVICES}
    services = [_cluster(service, replicas[service], tls.upstream(service)) for service in SERVICES]
    auth = replicas["auth"], tls.upstream("auth")
    strangers = [_cluster(name, *auth, requests) for name, requests in STRANGERS.items()]
    sockets = [_socket("jwks", jwks_socket), _socket("administration", admin_socket)]
    sockets += [_socket(CHECK, check_socket)] if check_socket else []
    return [*services, *strangers, *sockets]


def _socket(name: str, path: Path) -> dict[str, Any]:
    thresholds = {"max_connections": CHECKS, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 64}
    cluster = {"connect_timeout": "1s", "circuit_breakers": {"thresholds": [thresholds]}}
    return cluster | _endpoints(name, [{"pipe": {"path": str(path)}}])


def _endpoints(name: str, places: Sequence[dict[str, Any]]) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": place}} for place in places]}]
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}}


def _cluster(
    name: str, replicas: Sequence[Address], tls: dict[str, Any] | None, max_requests: int = 4096
) -> dict[str, Any]:
    named = any(replica.version == 0 for replica in replicas)
    # A name may stand for several.
    several = named or len(replicas) > 1
    places = [{"socket_address": {"address": replica.host, "port_value": replica.port}} for replica in replicas]
    return {
        **_endpoints(name, places),
        "type": "STRICT_DNS" if named else "STATIC",
        "connect_timeout": "1s",
        **({"transport_socket": tls} if tls else {}),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        "initial_stream_window_size": STREAM_WINDOW,
                        "initial_connection_window_size": CONNECTION_WINDOW,
                        **(_KEEPALIVE if several else {}),
                    }
                },
            }
        },
        "health_checks": [_HEALTH_CHECK],
        **(_EJECTION if several else {}),
        # While all replicas fail they get requests all the same (Envoy's panic mode): a lone service too busy to answer
        # a health check is not cut off by it. While one is well, none of the others do; Envoy's default is half.
        # What is found out about replicas is in force at once. By default Envoy keeps what it finds within a second of
        # something else until that second is over: one that has just come back gets nothing yet when the other dies.
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}, "update_merge_window": "0s"},
        "circuit_breakers": {
            "thresholds": [{"max_requests": max_requests, "max_pending_requests": max_requests, "max_retries": 64}]
        },
    }


# A replica that fails gets no requests. One that says it is about to end gets none at once, without a second look: the
# notice that services give (services/shared/service.py) is longer than the interval.
_HEALTH_CHECK: dict[str, Any] = {
    "grpc_health_check": {},
    "timeout": "2s",
    "interval": "1s",
    "unhealthy_interval": "0.25s",
    "unhealthy_edge_interval": "0.25s",
    "no_traffic_interval": "0.25s",
    "no_traffic_healthy_interval": "1s",
    "unhealthy_threshold": 2,
    "healthy_threshold": 1,
}

# Ends the connection to a replica that stands still or is cut off, and the requests on it, which others may then
# answer. The services allow pings this often. A lone service is waited for.
_KEEPALIVE: dict[str, Any] = {"connection_keepalive": {"interval": "1s", "timeout": "2s"}}

# Between two health checks: who breaks connections is left out for some seconds. What the replica itself answers counts
# for nothing, for it is about requests: one caller's errors would shut out all others.
_EJECTION: dict[str, Any] = {
    "outlier_detection": {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_time": "8s",
        "max_ejection_percent": 50,
    }
}
