"""Where requests go, and what is different about each method, in Envoy's words."""

from typing import Any

from strongroom.local.authorization import NAME
from strongroom.local.clusters import PROTOCOLS, PUBLIC, SESSIONS, SIGN_IN
from strongroom.local.contract import PUBLIC_PROTOCOLS, SERVICES, Contract, Method, regex, transcoder
from strongroom.local.limits import descriptors, told
from strongroom.local.retries import retries
from strongroom.rates import Rate

# Seconds that a method without a stream may take; callers set shorter deadlines of their own.
UNARY_SECONDS = 600
# The same of methods that need no credential.
PUBLIC_SECONDS = 60
# Bytes of a request that needs no credential: an e-mail address and a password, or a signed request.
PUBLIC_BYTES = 64 << 10
# The public method that computes passwords, which is slow.
PASSWORDS = "/strongroom.auth.v1.SessionService/SignIn"

# Bytes of a client's stream that are kept until a replica has taken the request.
_KEPT_BYTES = 1 << 20


def routes(contract: Contract, rate: Rate | None) -> list[dict[str, Any]]:
    """Those of gRPC methods, to which REST requests come once they are transcoded, and those they have before."""
    methods = [_route(method, rate) for method in contract.methods]
    protocols = [
        {
            "name": protocol,
            "match": {"prefix": f"/{protocol}/", "grpc": {}},
            "route": {"cluster": PROTOCOLS, "timeout": "0s", **_short()},
            "typed_per_filter_config": {**_OPEN, **_UNLIMITED},
        }
        for protocol in PUBLIC_PROTOCOLS
    ]
    return [*methods, *protocols, *_before_transcoding(contract), _ELSEWHERE]


def _before_transcoding(contract: Contract) -> list[dict[str, Any]]:
    """Routes that REST requests have until they are transcoded. Nobody is sent there: they tell auth the method, so
    that it judges a credential before anybody reads the body, and say how large a body may be.
    """
    return [
        {
            "name": method.path,
            "match": {
                "safe_regex": {"regex": regex(binding.template)},
                "headers": [{"name": ":method", "string_match": {"exact": binding.verb}}],
            },
            "direct_response": {"status": 404},
            "typed_per_filter_config": _before(method),
        }
        for method in contract.methods
        for binding in method.bindings
    ]


def _before(method: Method) -> dict[str, Any]:
    if method.public:
        return {**_OPEN, **_SMALL}
    return {**_asked_for(method), **(_UNLIMITED if method.client_streaming else {})}


def _route(method: Method, rate: Rate | None) -> dict[str, Any]:
    action: dict[str, Any] = {
        "cluster": _cluster_of(method),
        # The default of 15 s would cut streams.
        "timeout": "0s" if method.streaming else f"{UNARY_SECONDS}s",
        # A gRPC client's own deadline holds at the gateway as well.
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},
        **(_short() if method.public else {}),
        # What a client streams is not kept, so it cannot be sent again once it has begun.
        "retry_policy": retries(again=method.idempotent and not method.client_streaming),
        **descriptors(method, rate),
    }
    filters = {**_OPEN, **_whole_first(method)} if method.public else _asked_for(method)
    match = {"path": method.path, "grpc": {}}
    return {
        "name": method.path,
        "match": match,
        "route": action,
        **told(method, rate),
        **({"request_body_buffer_limit": _KEPT_BYTES} if method.client_streaming else {}),
        # The services limit gRPC messages themselves.
        "typed_per_filter_config": {**filters, **_UNLIMITED},
    }


def _cluster_of(method: Method) -> str:
    if not method.public:
        return method.upstream
    if method.static:
        return PUBLIC
    return SIGN_IN if method.path == PASSWORDS else SESSIONS


def _short() -> dict[str, Any]:
    """Ends a stream in time, whatever deadline its client asks for."""
    limit = f"{PUBLIC_SECONDS}s"
    return {"max_stream_duration": {"max_stream_duration": limit, "grpc_timeout_header_max": limit}}


_PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"

# Public methods need no credential.
_OPEN = {NAME: {"@type": _PER_ROUTE, "disabled": True}}

_FILTER = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
_UNLIMITED = {"body_size_limit": {"@type": _FILTER, "disabled": True}}
# PUBLIC_BYTES instead.
_SMALL = {**_UNLIMITED, "body_size_limit.public": {"@type": _FILTER, "config": {}}}


_TRANSCODER = "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder"
# Last: what has no route above does not exist. The transcoder has a reading of paths of its own; a path that it knows
# and the routes do not would pass by the check of credentials and by what that counts. So none is transcoded here.
_ELSEWHERE: dict[str, Any] = {
    "name": "elsewhere",
    "match": {"prefix": "/"},
    "direct_response": {"status": 404},
    "typed_per_filter_config": {
        **_OPEN,
        **{transcoder(service): {"@type": _TRANSCODER, "proto_descriptor_bin": ""} for service in SERVICES},
    },
}


def _asked_for(method: Method) -> dict[str, Any]:
    """Tells auth which method a path is."""
    return {NAME: {"@type": _PER_ROUTE, "check_settings": {"context_extensions": {"method": method.path}}}}


def _whole_first(method: Method) -> dict[str, Any]:
    """Takes a thread of auth only for a request that has come as a whole: whoever sends no more keeps none."""
    if method.streaming:
        return {}
    model = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
    return {"envoy.filters.http.buffer": {"@type": model, "buffer": {"max_request_bytes": PUBLIC_BYTES}}}
