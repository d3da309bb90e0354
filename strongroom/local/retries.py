"""When another replica is asked, in Envoy's words."""

from typing import Any

# What no replica has seen: another one may be asked, whatever it is.
_UNSEEN = "connect-failure,refused-stream,reset-before-request"
# What a replica may have begun, and asking twice changes nothing more than asking once.
_BEGUN = "unavailable,reset"
_PREVIOUS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"


def retries(*, again: bool) -> dict[str, Any]:
    """With `again` also for what one may have begun to do."""
    return {
        "retry_on": f"{_UNSEEN},{_BEGUN}" if again else _UNSEEN,
        "num_retries": 3,
        "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"type.googleapis.com/{_PREVIOUS}"},
            }
        ],
        "host_selection_retry_max_attempts": 3,
    }
