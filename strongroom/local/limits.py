"""The rate limit, in Envoy's words: a bucket of tokens for each client.

A client is a credential, or an address where none is needed. An access token and the API key that it was made of are
one credential; of an IPv6 address the network counts, for whoever has one address of it has 2^64.
"""

from typing import Any

from strongroom.local.authorization import CREDENTIAL, NAME
from strongroom.local.contract import Method
from strongroom.rates import Rate

# Moving weights takes many requests: a folder of 200 files is 200. They have a bucket of their own, of so many times
# the rate, in which a stream counts as one.
BULK = frozenset({"WriteChunks", "HasChunks", "ReadFile", "CreateUpload", "CommitUpload", "PutFile", "GetFile"})
BULK_FACTOR = 60

_CREDENTIAL, _CLASS, _BULK = "credential", "class", "bulk"
# Clients that are remembered, for each bucket; the one that was quiet for longest is forgotten first.
_CLIENTS = 20_000
_MODEL = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"


def limiter(rate: Rate | None) -> dict[str, Any]:
    """The filter. It looks at what `descriptors` puts on the routes, so without a rate it does nothing."""
    config: dict[str, Any] = {"@type": _MODEL, "stat_prefix": "client"}
    if rate:
        always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        config |= {
            "filter_enabled": always,
            "filter_enforced": always,
            # Anything else than a client is not counted.
            "always_consume_default_token_bucket": False,
            "max_dynamic_descriptors": _CLIENTS,
            "rate_limited_as_resource_exhausted": True,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "descriptors": [
                {"entries": [{"key": _CREDENTIAL}], "token_bucket": _bucket(rate, 1)},
                {
                    "entries": [{"key": _CREDENTIAL}, {"key": _CLASS, "value": _BULK}],
                    "token_bucket": _bucket(rate, BULK_FACTOR),
                },
                {"entries": [{"key": "masked_remote_address"}], "token_bucket": _bucket(rate, 1)},
            ],
        }
    return {"name": "envoy.filters.http.local_ratelimit", "typed_config": config}


def descriptors(method: Method, rate: Rate | None) -> dict[str, Any]:
    """What a route says about who is counted: nobody for what everybody may see, health before all."""
    if rate is None or method.static:
        return {}
    if method.public:
        masked = {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}
        return {"rate_limits": [{"actions": [{"masked_remote_address": masked}]}]}
    bulk = [{"generic_key": {"descriptor_key": _CLASS, "descriptor_value": _BULK}}] if method.name in BULK else []
    # The one of them that has judged the request's credential has left its id.
    sources = [("envoy.filters.http.jwt_authn", ["access_token", "cred"]), (NAME, [CREDENTIAL])]
    return {"rate_limits": [{"actions": [_metadata(name, path), *bulk]} for name, path in sources]}


def told(method: Method, rate: Rate | None) -> dict[str, Any]:
    """The field of a route by which answers say of how many seconds the limit is: Envoy's own headers do not.

    https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-07.html#section-3.2
    """
    if rate is None or method.static:
        return {}
    most = rate.requests * (BULK_FACTOR if method.name in BULK else 1)
    header = {"key": "ratelimit-policy", "value": f"{most};w={rate.seconds}"}
    return {"response_headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]}


def _metadata(filter_name: str, path: list[str]) -> dict[str, Any]:
    key = {"key": filter_name, "path": [{"key": name} for name in path]}
    return {"metadata": {"descriptor_key": _CREDENTIAL, "metadata_key": key}}


def _bucket(rate: Rate, factor: int) -> dict[str, Any]:
    tokens = rate.requests * factor
    return {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": f"{rate.seconds}s"}
