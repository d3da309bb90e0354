"""Secrets in Azure Key Vault.

It has no check-and-set: what is expected is compared before a version is added. Its names know no case, so capitals are
spelt.
"""

import re
import string
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.identity import ClientSecretCredential, DefaultAzureCredential
from azure.keyvault.secrets import SecretClient, SecretProperties

from services.secrets.providers.configuration import AzureConfiguration
from services.secrets.providers.names import Below, Spelling
from services.secrets.providers.provider import (
    CONNECT_SECONDS,
    READ_SECONDS,
    Data,
    ProviderRefused,
    ProviderUnavailable,
    Revision,
    RevisionAbsent,
    SecretAbsent,
    Value,
    compared,
    decoded,
    encoded,
)
from services.shared.configuration import ConfigurationError

# https://learn.microsoft.com/azure/key-vault/secrets/about-secrets, .../general/about-keys-secrets-certificates
_MAX_BYTES = 25_000
_CAPITALS = {capital: f"c{capital.lower()}" for capital in string.ascii_uppercase}
_SPELLING = Spelling("-", {"/": "-", "-": "m", "_": "u", ".": "d"} | _CAPITALS, limit=127)
_REVISION = re.compile(r"[0-9a-f]{32}")
_TYPE = "application/json"
_ATTEMPTS = 2


def opened(configuration: AzureConfiguration) -> "AzureProvider":
    """Asks nothing of the server yet. Raises ConfigurationError."""
    network: dict[str, Any] = {
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retry_total": _ATTEMPTS,
        "connection_verify": str(configuration.ca) if configuration.ca else True,
    }
    try:
        client = SecretClient(
            configuration.endpoint,
            _credential(configuration, network),
            verify_challenge_resource=configuration.verify_challenge,
            **network,
        )
    except ValueError as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError("endpoint or credential is not one of Azure Key Vault") from None
    return AzureProvider(client, Below(configuration.prefix))


def _credential(configuration: AzureConfiguration, network: dict[str, Any]) -> Any:
    where = {"authority": configuration.authority} if configuration.authority else {}
    if configuration.client_secret is None:
        return DefaultAzureCredential(**where, **network)
    return ClientSecretCredential(
        str(configuration.tenant),
        str(configuration.client_id),
        configuration.client_secret.read(),
        # Of an authority of one's own Microsoft's would know nothing.
        disable_instance_discovery=bool(where),
        **where,
        **network,
    )


class AzureProvider:
    """Secrets below a prefix."""

    def __init__(self, client: SecretClient, below: Below) -> None:
        self._client = client
        self._below = below

    def put(self, name: str, data: Data, expected: str | None = None) -> Revision:
        text = encoded(data, _MAX_BYTES)
        place = self._place(name)
        with _translated(name):
            if expected is not None:
                compared(name, expected, self._current(place))
            try:
                made = self._client.set_secret(place, text, content_type=_TYPE)
            except ResourceExistsError:  # deleted, and kept by the vault
                self._client.begin_recover_deleted_secret(place).wait()
                made = self._client.set_secret(place, text, content_type=_TYPE)
        return _revision(made.properties)

    def get(self, name: str, revision: str = "") -> Value:
        if revision and not _REVISION.fullmatch(revision):
            raise RevisionAbsent(name, revision)
        with _translated(name, revision):
            found = self._client.get_secret(self._place(name), revision or None)
        return Value(_revision(found.properties), decoded(name, found.value or ""))

    def versions(self, name: str) -> list[Revision]:
        place = self._place(name)
        with _translated(name):
            current = self._client.get_secret(place).properties.version
            found = [_revision(one) for one in self._client.list_properties_of_secret_versions(place) if one.enabled]
        # Several may be of one second.
        return sorted(found, key=lambda one: (one.revision == current, one.created_at), reverse=True)

    def list(self, prefix: str = "") -> Iterator[str]:
        with _translated(prefix):
            for secret in self._client.list_properties_of_secrets():
                full = _SPELLING.read(secret.name or "")
                own = None if full is None else self._below.own(full)
                if own is not None and own.startswith(prefix):
                    yield own

    def delete(self, name: str) -> bool:
        place = self._place(name)
        with _translated(name):
            try:
                self._client.begin_delete_secret(place).wait()
            except ResourceNotFoundError:
                return False
            try:
                self._client.purge_deleted_secret(place)
            except HttpResponseError as error:
                # A vault may be set up to keep what is deleted for its time.
                if error.status_code not in (403, 404, 405):
                    raise
        return True

    def check(self) -> None:
        with _translated(""):
            next(iter(self._client.list_properties_of_secrets(max_page_size=1)), None)

    def _place(self, name: str) -> str:
        return _SPELLING.spell(self._below.full(name))

    def _current(self, place: str) -> str:
        try:
            return self._client.get_secret(place).properties.version or ""
        except ResourceNotFoundError:
            return ""


def _revision(about: SecretProperties) -> Revision:
    return Revision(about.version or "", about.created_on)


@contextmanager
def _translated(name: str, revision: str = "") -> Iterator[None]:
    """Errors as the protocol has them, without Azure's text."""
    try:
        yield
    except ResourceNotFoundError:
        raise (RevisionAbsent(name, revision) if revision else SecretAbsent(name)) from None
    except ClientAuthenticationError as error:
        raise ProviderRefused(type(error).__name__) from None
    except HttpResponseError as error:
        kind = ProviderRefused if error.status_code in (400, 403) else ProviderUnavailable
        raise kind(f"HTTP {error.status_code}") from None
    except (AzureError, ValueError) as error:
        raise ProviderUnavailable(type(error).__name__) from None
