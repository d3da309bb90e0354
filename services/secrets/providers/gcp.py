"""Secrets in Google Cloud Secret Manager.

It has no check-and-set on versions: what is expected is compared before a version is added.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import google.auth
import google_crc32c
import grpc
from google.api_core import exceptions, retry
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import secretmanager_v1 as secretmanager
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceGrpcTransport
from google.oauth2 import service_account

from services.secrets.providers.configuration import GcpConfiguration
from services.secrets.providers.names import Below, Spelling
from services.secrets.providers.provider import (
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

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# Letters, digits, `_` and `-` (https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets/create).
_SPELLING = Spelling("_", {"/": "_", ".": "d", "_": "u"}, limit=255)
_LATEST = "latest"
_PAGE = 500
_READ: dict[str, Any] = {
    "timeout": READ_SECONDS,
    "retry": retry.Retry(retry.if_exception_type(exceptions.ServiceUnavailable), initial=0.2, timeout=READ_SECONDS),
}
# A write that was not answered may have been done.
_WRITE: dict[str, Any] = {"timeout": READ_SECONDS, "retry": None}


def opened(configuration: GcpConfiguration) -> "GcpProvider":
    """Asks nothing of the server yet. Raises ConfigurationError."""
    transport = SecretManagerServiceGrpcTransport
    endpoint = (configuration.endpoint or "").partition("://")[2]
    if configuration.anonymous and endpoint:
        plain = str(configuration.endpoint).startswith("http://")
        channel = (
            grpc.insecure_channel(endpoint) if plain else grpc.secure_channel(endpoint, grpc.ssl_channel_credentials())
        )
        client = secretmanager.SecretManagerServiceClient(transport=transport(channel=channel))
    else:
        options = {"api_endpoint": endpoint} if endpoint else None
        client = secretmanager.SecretManagerServiceClient(
            credentials=_credentials(configuration), client_options=options, transport="grpc"
        )
    return GcpProvider(client, configuration.project, Below(configuration.prefix), configuration.locations)


def _credentials(configuration: GcpConfiguration) -> Credentials:
    if configuration.anonymous:
        return AnonymousCredentials()
    try:
        if configuration.credentials is None:
            return google.auth.default(scopes=[_SCOPE])[0]
        account = json.loads(configuration.credentials.read())
        return service_account.Credentials.from_service_account_info(account, scopes=[_SCOPE])
    except DefaultCredentialsError:
        raise ConfigurationError("there are no application default credentials; name a service account's key") from None
    except (ValueError, TypeError, AttributeError, GoogleAuthError) as error:  # whose text may quote the key
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError("credentials are not a service account's JSON key") from None


class GcpProvider:
    """Secrets of a project, below a prefix."""

    def __init__(self, client: Any, project: str, below: Below, locations: tuple[str, ...] = ()) -> None:
        self._client = client
        self._parent = f"projects/{project}"
        self._below = below
        chosen = {"user_managed": {"replicas": [{"location": location} for location in locations]}}
        self._replication = chosen if locations else {"automatic": {}}

    def put(self, name: str, data: Data, expected: str | None = None) -> Revision:
        payload = encoded(data).encode()
        place = self._place(name)
        with _translated(name):
            if expected is not None:
                compared(name, expected, self._current(place))
            version = {"data": payload, "data_crc32c": google_crc32c.value(payload)}
            try:
                added = self._client.add_secret_version(parent=place, payload=version, **_WRITE)
            except exceptions.NotFound:
                with suppress(exceptions.AlreadyExists):
                    self._client.create_secret(
                        parent=self._parent,
                        secret_id=place.rpartition("/")[2],
                        secret={"replication": self._replication},
                        **_WRITE,
                    )
                added = self._client.add_secret_version(parent=place, payload=version, **_WRITE)
        return _revision(added)

    def get(self, name: str, revision: str = "") -> Value:
        if revision and not revision.isdecimal():
            raise RevisionAbsent(name, revision)
        with _translated(name, revision):
            try:
                version = f"{self._place(name)}/versions/{revision or _LATEST}"
                found = self._client.access_secret_version(name=version, **_READ)
            except exceptions.FailedPrecondition:  # disabled or destroyed
                raise RevisionAbsent(name, revision or _LATEST) from None
        if google_crc32c.value(found.payload.data) != found.payload.data_crc32c:
            raise ProviderUnavailable("the value came damaged")
        return Value(Revision(found.name.rpartition("/")[2]), decoded(name, found.payload.data))

    def versions(self, name: str) -> list[Revision]:
        enabled = secretmanager.SecretVersion.State.ENABLED
        with _translated(name):
            found = self._client.list_secret_versions(
                request={"parent": self._place(name), "page_size": _PAGE}, **_READ
            )
            readable = [_revision(version) for version in found if version.state == enabled]
        if not readable:
            raise SecretAbsent(name)
        return sorted(readable, key=lambda version: -int(version.revision))

    def list(self, prefix: str = "") -> Iterator[str]:
        with _translated(prefix):
            for secret in self._client.list_secrets(request={"parent": self._parent, "page_size": _PAGE}, **_READ):
                full = _SPELLING.read(secret.name.rpartition("/")[2])
                own = None if full is None else self._below.own(full)
                if own is not None and own.startswith(prefix):
                    yield own

    def delete(self, name: str) -> bool:
        with _translated(name):
            try:
                self._client.delete_secret(name=self._place(name), **_WRITE)
            except exceptions.NotFound:
                return False
        return True

    def check(self) -> None:
        with _translated(""):
            self._client.list_secrets(request={"parent": self._parent, "page_size": 1}, **_WRITE)

    def _place(self, name: str) -> str:
        return f"{self._parent}/secrets/{_SPELLING.spell(self._below.full(name))}"

    def _current(self, place: str) -> str:
        try:
            found = self._client.get_secret_version(name=f"{place}/versions/{_LATEST}", **_READ)
        except exceptions.NotFound:
            return ""
        return str(found.name.rpartition("/")[2])


def _revision(version: Any) -> Revision:
    return Revision(version.name.rpartition("/")[2], version.create_time)


@contextmanager
def _translated(name: str, revision: str = "") -> Iterator[None]:
    """Errors as the protocol has them, without Google's text."""
    try:
        yield
    except exceptions.NotFound:
        raise (RevisionAbsent(name, revision) if revision else SecretAbsent(name)) from None
    except (exceptions.Forbidden, exceptions.Unauthorized, exceptions.BadRequest, GoogleAuthError) as error:
        raise ProviderRefused(type(error).__name__) from None
    except (exceptions.GoogleAPIError, grpc.RpcError) as error:
        raise ProviderUnavailable(type(error).__name__) from None
