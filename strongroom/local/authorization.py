"""How the gateway asks auth about a credential, in Envoy's words.

Asked before anybody reads the body, after the route has told the method; not where a token was verified already, nor on
routes of public methods. It fails closed.
"""

from pathlib import Path
from typing import Any

from strongroom.local.retries import retries

_MODEL = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
NAME = "envoy.filters.http.ext_authz"
# The cluster of auth's socket.
CHECK = "check"
# Under this name the credential's id is in the filter's metadata.
CREDENTIAL = "x-strongroom-credential"

_SECONDS = "5s"
# Nothing else of a request is auth's to know.
_SHOWN = ["x-api-key", "authorization", "x-strongroom-several-credentials", "x-request-id"]


def authorization(check_socket: Path | None) -> dict[str, Any]:
    """The filter, which asks over auth's socket if it is on this machine, else over gRPC."""
    return {
        "name": NAME,
        "typed_config": {
            "@type": _MODEL,
            "transport_api_version": "V3",
            **(_over_http() if check_socket else _over_grpc()),
            "allowed_headers": _exactly(*_SHOWN),
            "failure_mode_allow": False,
            "status_on_error": {"code": "ServiceUnavailable"},
            "validate_mutations": True,
            "filter_enabled_metadata": {
                "filter": "envoy.filters.http.jwt_authn",
                "path": [{"key": "access_token"}],
                "value": {"present_match": True},
                "invert": True,
            },
        },
    }


def _over_grpc() -> dict[str, Any]:
    # To judge a credential twice does no harm: of one that is wrong, one more failure is counted.
    # Not within `envoy_grpc`, where it is about Envoy's own configuration alone.
    service = {"envoy_grpc": {"cluster_name": "auth"}, "timeout": _SECONDS, "retry_policy": retries(again=True)}
    return {"grpc_service": service}


def _over_http() -> dict[str, Any]:
    said = {"x-strongroom-method": "%ROUTE_NAME%", "x-strongroom-address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}
    return {
        "http_service": {
            "server_uri": {"uri": "http://auth", "cluster": CHECK, "timeout": _SECONDS},
            "retry_policy": retries(again=True),
            "authorization_request": {"headers_to_add": [{"key": key, "value": value} for key, value in said.items()]},
            "authorization_response": {
                "allowed_upstream_headers": _exactly("x-strongroom-identity"),
                "allowed_client_headers": _exactly("retry-after"),
                "dynamic_metadata_from_headers": _exactly(CREDENTIAL),
            },
        }
    }


def _exactly(*names: str) -> dict[str, Any]:
    return {"patterns": [{"exact": name} for name in names]}
