"""What somebody hears who speaks in the clear to a port of TLS, in Envoy's words: one sentence, and nothing else."""

from typing import Any

_FILTERS = "type.googleapis.com/envoy.extensions.filters"


def inspectors() -> list[dict[str, Any]]:
    """Tell TLS by a connection's first bytes, which who sends none has no long time for."""
    inspector = f"{_FILTERS}.listener.tls_inspector.v3.TlsInspector"
    return [{"name": "envoy.filters.listener.tls_inspector", "typed_config": {"@type": inspector}}]


def refusal(lua: str) -> dict[str, Any]:
    """The filter chain of connections without TLS. `lua` answers every request."""
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "cleartext",
        "codec_type": "AUTO",
        "server_header_transformation": "PASS_THROUGH",
        "common_http_protocol_options": {"idle_timeout": "10s", "max_requests_per_connection": 1},
        "http2_protocol_options": {"max_concurrent_streams": 1},
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "10s",
        "http_filters": [
            {
                "name": "envoy.filters.http.lua",
                "typed_config": {
                    "@type": f"{_FILTERS}.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": lua},
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            },
        ],
        "route_config": {"virtual_hosts": [{"name": "cleartext", "domains": ["*"], "routes": [_NOWHERE]}]},
    }
    return {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}


_NOWHERE = {"match": {"prefix": "/"}, "direct_response": {"status": 403}}
