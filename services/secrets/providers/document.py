"""The Secret Management API's YAML as a configuration of providers (docs/secret-manager.md).

    secrets:
      vault: {enabled: true, address: "https://vault.example.com:8200", auth_method: kubernetes}

Vault is a replica of the primary. The document has no option for credentials: they are in the environment.
"""

from typing import Any

import structlog

from services.shared.configuration import ConfigurationError
from strongroom.errors import InvalidArgument
from strongroom.secret_options import is_documented, parse

_log = structlog.get_logger()
_VAULT = "vault"
_SIGN_IN: dict[str, dict[str, Any]] = {
    "kubernetes": {"role": "strongroom"},
    "approle": {
        "role_id": {"environment": "STRONGROOM_PROVIDER_ROLE_ID"},
        "secret_id": {"environment": "STRONGROOM_PROVIDER_SECRET_ID"},
    },
    "token": {"token": {"environment": "STRONGROOM_PROVIDER_TOKEN"}},
}


def translated(fields: Any) -> Any:
    """The fields of a configuration of providers; what is not in the document's form as it is. ConfigurationError."""
    if not is_documented(fields):
        return fields
    try:
        vault = parse(fields).vault
    except InvalidArgument as error:
        raise ConfigurationError(error.message) from None
    replicas = [_VAULT] if vault.enabled else []
    _log.info("STRONGROOM_PROVIDERS is a file of the Secret Management API, and is obeyed", replicas=replicas)
    if not vault.enabled:
        return {}
    sign_in = {"method": vault.auth_method, **_SIGN_IN[vault.auth_method]}
    provider = {"kind": "vault", "endpoint": vault.address, "prefix": "strongroom", "sign_in": sign_in}
    return {"replicas": replicas, "providers": {_VAULT: provider}}
