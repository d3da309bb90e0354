"""Secrets in the KV engine, version 2, of OpenBao or HashiCorp Vault. It has check-and-set of its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import hvac
import requests
from hvac import exceptions

from services.secrets.providers.configuration import (
    AppRoleSignIn,
    KubernetesSignIn,
    OpenBaoConfiguration,
    TokenSignIn,
)
from services.secrets.providers.names import Below, is_beginning
from services.secrets.providers.provider import (
    CONNECT_SECONDS,
    READ_SECONDS,
    Data,
    ProviderRefused,
    ProviderUnavailable,
    Revision,
    RevisionAbsent,
    RevisionMismatch,
    SecretAbsent,
    SecretPresent,
    Value,
    encoded,
)
from services.shared.configuration import bounded_text

_Answer = TypeVar("_Answer")
# Takes a client without a token and gives it one.
SignIn = Callable[[hvac.Client], None]

_REFUSED = (exceptions.Forbidden, exceptions.Unauthorized)
# What the server says where the check fails, and where a mount demands one.
_MISMATCH = "did not match the current version"
_DEMANDED = "check-and-set parameter required"


def opened(configuration: OpenBaoConfiguration) -> "OpenBaoProvider":
    """Asks nothing of the server yet. Raises ConfigurationError."""
    client = hvac.Client(
        configuration.endpoint,
        token="",  # otherwise it would be the one of whoever's home folder or environment this is
        verify=str(configuration.ca) if configuration.ca else True,
        timeout=(CONNECT_SECONDS, READ_SECONDS),
        allow_redirects=False,  # a token goes nowhere else
        namespace=configuration.namespace,
    )
    return OpenBaoProvider(client, _sign_in(configuration), configuration.mount, Below(configuration.prefix))


def _sign_in(configuration: OpenBaoConfiguration) -> SignIn:
    match configuration.sign_in:
        case TokenSignIn(token=token):
            value = token.read()
            return lambda client: setattr(client, "token", value)
        case AppRoleSignIn(role_id=role_id, secret_id=secret_id, mount=mount):
            credential = role_id.read(), secret_id.read()
            return lambda client: client.auth.approle.login(*credential, mount_point=mount)
        case KubernetesSignIn(role=role, token_file=file, mount=mount):
            return lambda client: client.auth.kubernetes.login(role, bounded_text(file).strip(), mount_point=mount)


class OpenBaoProvider:
    """Secrets below a prefix of a mount.

    Args:
        client: without a token; `sign_in` gives it one at the first call, and another when the server forgot it.
    """

    def __init__(self, client: hvac.Client, sign_in: SignIn, mount: str, below: Below) -> None:
        self._client = client
        self._sign_in = sign_in
        self._mount = mount
        self._below = below

    def put(self, name: str, data: Data, expected: str | None = None) -> Revision:
        encoded(data)
        if expected and not expected.isdecimal():
            raise RevisionMismatch(name)
        cas = None if expected is None else int(expected or 0)
        try:
            answer = self._write(name, data, cas)
        except exceptions.InvalidRequest as error:
            if _DEMANDED in str(error) and expected is None:
                return self.put(name, data, self._current(name))
            if _MISMATCH not in str(error):
                raise ProviderRefused("it takes the request for wrong") from None
            raise (RevisionMismatch(name) if expected else SecretPresent(name)) from None
        return _revision(answer["data"]["version"], answer["data"])

    def get(self, name: str, revision: str = "") -> Value:
        if revision and not revision.isdecimal():
            raise RevisionAbsent(name, revision)
        with _translated():
            try:
                found = self._call(
                    lambda: self._kv.read_secret_version(
                        self._below.full(name),
                        version=int(revision) if revision else None,
                        mount_point=self._mount,
                        raise_on_deleted_version=True,
                    )
                )
            except exceptions.InvalidPath:
                raise (RevisionAbsent(name, revision) if revision else SecretAbsent(name)) from None
        about = found["data"]["metadata"]
        return Value(_revision(about["version"], about), found["data"]["data"])

    def versions(self, name: str) -> list[Revision]:
        about = self._about(name)
        readable = [
            _revision(number, version)
            for number, version in about.get("versions", {}).items()
            if not version["destroyed"] and not version["deletion_time"]
        ]
        return sorted(readable, key=lambda version: -int(version.revision))

    def list(self, prefix: str = "") -> Iterator[str]:
        # The prefix becomes part of a path: with dots in it, a token would list what lies outside the folder.
        folders = [self._below.full(prefix.rpartition("/")[0])] if is_beginning(prefix) else []
        while folders:
            folder = folders.pop().strip("/")
            for key in self._keys(folder):
                full = f"{folder}/{key}".lstrip("/")
                own = self._below.own(full)
                if key.endswith("/"):
                    folders.append(full)
                elif own is not None and own.startswith(prefix):
                    yield own

    def delete(self, name: str) -> bool:
        try:
            self._about(name)
        except SecretAbsent:
            return False
        path = self._below.full(name)
        with _translated():
            self._call(lambda: self._kv.delete_metadata_and_all_versions(path, mount_point=self._mount))
        return True

    def check(self) -> None:
        self._keys(self._below.full("").strip("/"))

    @property
    def _kv(self) -> Any:
        return self._client.secrets.kv.v2

    def _write(self, name: str, data: Data, cas: int | None) -> Any:
        path = self._below.full(name)
        with _translated():
            return self._call(
                lambda: self._kv.create_or_update_secret(path, dict(data), cas=cas, mount_point=self._mount)
            )

    def _current(self, name: str) -> str:
        try:
            return str(self._about(name)["current_version"] or "")
        except SecretAbsent:
            return ""

    def _about(self, name: str) -> Any:
        path = self._below.full(name)
        with _translated():
            try:
                return self._call(lambda: self._kv.read_secret_metadata(path, mount_point=self._mount))["data"]
            except exceptions.InvalidPath:
                raise SecretAbsent(name) from None

    def _keys(self, folder: str) -> Sequence[str]:
        with _translated():
            try:
                answer = self._call(lambda: self._kv.list_secrets(folder, mount_point=self._mount))
            except exceptions.InvalidPath:
                return ()
        keys: Sequence[str] = answer["data"]["keys"]
        return keys

    def _call(self, request: Callable[[], _Answer]) -> _Answer:
        """Signs in first, if that was not done, and once more if what it gave is not good any longer."""
        signed_in = bool(self._client.token)
        if not signed_in:
            self._renew()
        try:
            answer = request()
        except _REFUSED:
            if not signed_in:
                raise
            self._renew()
            answer = request()
        if isinstance(answer, requests.Response) and answer.is_redirect:
            raise ProviderRefused("it sends us elsewhere")
        return answer

    def _renew(self) -> None:
        try:
            self._sign_in(self._client)
        except (exceptions.InvalidRequest, exceptions.InvalidPath, ValueError):
            raise ProviderRefused("it does not let us sign in") from None


def _revision(number: object, about: Any) -> Revision:
    return Revision(str(number), datetime.fromisoformat(about["created_time"]))


@contextmanager
def _translated() -> Iterator[None]:
    """Errors as the protocol has them, without the server's text, which may repeat what it was told."""
    try:
        yield
    except _REFUSED:
        raise ProviderRefused("permission denied") from None
    except (exceptions.InvalidRequest, exceptions.InvalidPath):
        raise
    except (exceptions.VaultError, requests.RequestException, KeyError, TypeError) as error:
        raise ProviderUnavailable(type(error).__name__) from None
