"""Strongroom: models, the secrets they need and the keys that open them.

from strongroom import Client
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strongroom.aio import AsyncClient
    from strongroom.client import Client
    from strongroom.cloud_providers import CloudProviderFactory
    from strongroom.secret_manager import SecretManager

__all__ = ["AsyncClient", "Client", "CloudProviderFactory", "SecretManager"]

_MODULES = {
    "AsyncClient": "aio",
    "Client": "client",
    "CloudProviderFactory": "cloud_providers",
    "SecretManager": "secret_manager",
}


def __getattr__(name: str) -> Any:
    # Loaded when it is asked for: `strongroom --help` must not wait for gRPC, nor the services for the client.
    if name in _MODULES:
        return getattr(import_module(f"strongroom.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
