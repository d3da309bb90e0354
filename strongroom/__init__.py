"""Strongroom: models, the secrets they need and the keys that open them.

from strongroom import Client
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strongroom.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    # Loaded when it is asked for: `strongroom --help` must not wait for gRPC, nor the services for the client.
    if name == "Client":
        from strongroom.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
