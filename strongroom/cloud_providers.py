"""Cloud providers as `SecretManager` takes them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from strongroom.secret_options import nearest

# What a configuration may say that is no secret, and is shown.
_SHOWN = ("region", "region_name", "project", "project_id", "endpoint", "address", "bucket", "container", "path")
# Of which kind a provider is, by the services that it stands for: those that keep secrets, and those that keep weights.
SECRET_KINDS = {"aws": ("aws",), "gcp": ("gcp",), "azure": ("azure",), "vault": ("openbao", "vault"), "local": ()}
STORE_KINDS = {"aws": ("s3",), "gcp": ("gcs",), "azure": ("azure",), "vault": (), "local": ("local",)}
# Without user, password or query, which may hold a signature.
_PUBLIC = re.compile(r"[A-Za-z0-9:/._-]{1,255}")
_MOST = 100


@dataclass(frozen=True)
class CloudProvider:
    """A cloud that the service keeps secrets or weights in. Its repr shows no credential.

    The service connects to clouds, with credentials of its own; those in here go nowhere.
    """

    kind: str
    configuration: Mapping[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        shown = {
            name: value for name, value in self.configuration.items() if name in _SHOWN and _PUBLIC.fullmatch(value)
        }
        return f"CloudProvider({', '.join([repr(self.kind), *(f'{name}={value!r}' for name, value in shown.items())])})"


class CloudProviderFactory:
    """Makes cloud providers of their kind and configuration."""

    def create_provider(self, provider_type: str, config: Mapping[str, Any] | None = None) -> CloudProvider:
        """A provider of kind `aws`, `gcp`, `azure`, `vault` or `local`. Raises ValueError, which repeats no value."""
        if provider_type not in SECRET_KINDS:
            shown = (
                provider_type if isinstance(provider_type, str) and re.fullmatch("[a-z]{1,16}", provider_type) else "…"
            )
            raise ValueError(f"There is no kind of provider {shown}. {nearest(shown, SECRET_KINDS)}")
        configuration = {} if config is None else config
        if not isinstance(configuration, Mapping) or not all(isinstance(name, str) for name in configuration):
            raise ValueError(f"The configuration of {provider_type} is a dictionary with names.")
        if len(configuration) > _MOST:
            raise ValueError(f"The configuration of {provider_type} has more than {_MOST} fields.")
        for name in _SHOWN:
            if name in configuration and not (isinstance(configuration[name], str) and configuration[name]):
                raise ValueError(f"The configuration of {provider_type}: {name} is text, and not empty.")
        return CloudProvider(provider_type, dict(configuration))
