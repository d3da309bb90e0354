"""Secrets: small structured values, versioned."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf import json_format, struct_pb2, timestamp_pb2

from strongroom.client.paging import pages
from strongroom.connection import Connection
from strongroom.errors import Conflict, InvalidArgument
from strongroom.retries import Repeat
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc

# How bytes are written, for which JSON has no form: an object of this one field.
BINARY = "$base64"
# How often `patch` reads again when others write at the same time.
_ATTEMPTS = 20


@dataclass(frozen=True)
class Folder:
    """What stands directly in a folder: the names of its folders, each ending in `/`, and its secrets."""

    folders: Sequence[str]
    secrets: Sequence[secrets_pb2.SecretSummary]


class Secrets:
    """Secrets: small structured values, versioned."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = secrets_pb2_grpc.SecretServiceStub(connection.channel)

    def create(
        self,
        name: str,
        data: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        expires_at: datetime | None = None,
    ) -> secrets_pb2.SecretVersion:
        """Writes the first version of a new secret; as `put`. Raises AlreadyExists."""
        request = secrets_pb2.CreateSecretRequest(
            name=name, data=struct_of(data), labels=labels, expires_at=_timestamp(expires_at)
        )
        return self._connection.call(self._stub.CreateSecret, request)

    def put(
        self,
        name: str,
        data: Mapping[str, Any],
        *,
        expected_version: int | None = None,
        labels: Mapping[str, str] | None = None,
        expires_at: datetime | None = None,
        allow_missing: bool = True,
    ) -> secrets_pb2.SecretVersion:
        """Writes a new version, of a new secret if there is none; unless `allow_missing`, that raises NotFound.

        Values are what JSON knows, and bytes. With `expected_version` only if that is the current one, 0 for none
        (check-and-set): raises Conflict. `labels` replace those of the secret if there are any. From `expires_at` on
        the version is not served. Raises InvalidArgument for whole numbers that are beyond what is kept exactly:
        64-bit floating point.
        """
        request = secrets_pb2.UpdateSecretRequest(
            name=name,
            data=struct_of(data),
            expected_version=expected_version,
            allow_missing=allow_missing,
            labels=labels,
            expires_at=_timestamp(expires_at),
        )
        return self._connection.call(self._stub.UpdateSecret, request)

    def patch(self, name: str, changes: Mapping[str, Any], *, remove: Iterable[str] = ()) -> secrets_pb2.SecretVersion:
        """Writes a new version in which these fields are changed, added or removed; the others stay.

        What others write at the same time is not lost. Raises NotFound, and Conflict if they never let us write.
        """
        gone = set(remove)
        for _ in range(_ATTEMPTS):
            now = self.get(name)
            kept = {field: value for field, value in _plain(now.data).items() if field not in gone}
            try:
                return self.put(name, kept | dict(changes), expected_version=now.version)
            except Conflict as conflict:
                refused = conflict
        raise refused

    def stage(
        self, name: str, data: Mapping[str, Any], *, expires_at: datetime | None = None
    ) -> secrets_pb2.SecretVersion:
        """Writes a pending version, which is read only where it is asked for, until it is promoted or discarded."""
        request = secrets_pb2.StageSecretVersionRequest(
            name=name, data=struct_of(data), expires_at=_timestamp(expires_at)
        )
        return self._connection.call(self._stub.StageSecretVersion, request)

    def promote(self, name: str, version: int) -> secrets_pb2.SecretVersion:
        """Makes the pending version the current one, and the current one the previous."""
        request = secrets_pb2.PromoteSecretVersionRequest(name=name, version=version)
        return self._connection.call(self._stub.PromoteSecretVersion, request, repeat=Repeat.SAFE)

    def discard(self, name: str, version: int) -> secrets_pb2.SecretVersion:
        """Destroys the pending version."""
        request = secrets_pb2.DiscardSecretVersionRequest(name=name, version=version)
        return self._connection.call(self._stub.DiscardSecretVersion, request, repeat=Repeat.SAFE)

    def rollback(self, name: str, version: int = 0) -> secrets_pb2.SecretVersion:
        """Writes the value of an earlier version, the previous one if 0, as a new one. Raises Conflict."""
        current = self.about(name).current_version
        earlier = self.get(name, version, stage="" if version else "previous")
        return self.put(name, _plain(earlier.data), expected_version=current)

    def edit(
        self,
        name: str,
        *,
        set_labels: Mapping[str, str] | None = None,
        remove_labels: Iterable[str] = (),
        expires_at: datetime | None = None,
        never_expires: bool = False,
    ) -> secrets_pb2.SecretSummary:
        """Changes labels, and when the current version expires. Adds no version."""
        request = secrets_pb2.EditSecretRequest(
            name=name,
            set_labels=set_labels,
            remove_labels=remove_labels,
            expires_at=_timestamp(expires_at),
            never_expires=never_expires,
        )
        return self._connection.call(self._stub.EditSecret, request)

    def get(self, name: str, version: int = 0, *, stage: str = "") -> secrets_pb2.GetSecretResponse:
        """Reads a version with its value, by number or by stage; the current one if neither is given."""
        request = secrets_pb2.GetSecretRequest(name=name, version=version, stage=stage)
        return self._connection.call(self._stub.GetSecret, request, repeat=Repeat.SAFE)

    def value(self, name: str, version: int = 0, *, stage: str = "") -> dict[str, Any]:
        """The fields of a version as Python values, bytes as bytes: what was given to `put`."""
        return value_of(self.get(name, version, stage=stage))

    def list(
        self,
        prefix: str = "",
        *,
        query: str = "",
        labels: Iterable[str] = (),
        show_deleted: bool = False,
        written_before: datetime | None = None,
    ) -> Iterator[secrets_pb2.SecretSummary]:
        """The secrets the caller may list, by name, in all folders.

        Args:
            query: words that must be part of the name or of a label, in any case.
            labels: `KEY=VALUE` or `KEY` each, all of which a secret must have.
            written_before: only those whose current version is in use since before then.
        """
        request = secrets_pb2.ListSecretsRequest(
            prefix=prefix,
            query=query,
            label=labels,
            show_deleted=show_deleted,
            written_before=_timestamp(written_before),
            page_size=1000,
        )
        for page in pages(self._connection, self._stub.ListSecrets, request):
            yield from page.secrets

    def folder(self, prefix: str = "") -> Folder:
        """What stands directly below a prefix such as `prod/`."""
        request = secrets_pb2.ListSecretsRequest(prefix=prefix, by_folder=True, page_size=1000)
        found = list(pages(self._connection, self._stub.ListSecrets, request))
        return Folder([name for page in found for name in page.folders], [s for page in found for s in page.secrets])

    def about(self, name: str) -> secrets_pb2.SecretSummary:
        """A secret without its value: labels, expiry, current version."""
        request = secrets_pb2.ListSecretVersionsRequest(name=name, page_size=1)
        return self._connection.call(self._stub.ListSecretVersions, request, repeat=Repeat.SAFE).secret

    def history(self, name: str) -> Sequence[secrets_pb2.SecretVersion]:
        """The versions of a secret, newest first, without values."""
        request = secrets_pb2.ListSecretVersionsRequest(name=name)
        found = pages(self._connection, self._stub.ListSecretVersions, request)
        return [version for page in found for version in page.versions]

    def delete(self, name: str, versions: Iterable[int] = ()) -> secrets_pb2.DeleteSecretResponse:
        """Deletes a secret, or these versions of it; `undelete` brings them back."""
        request = secrets_pb2.DeleteSecretRequest(name=name, versions=versions)
        return self._connection.call(self._stub.DeleteSecret, request, repeat=Repeat.SAFE)

    def undelete(self, name: str, versions: Iterable[int] = ()) -> secrets_pb2.SecretSummary:
        """Brings back a deleted secret, or these deleted versions of it."""
        request = secrets_pb2.UndeleteSecretRequest(name=name, versions=versions)
        return self._connection.call(self._stub.UndeleteSecret, request, repeat=Repeat.SAFE)

    def destroy(self, name: str, versions: Iterable[int] = ()) -> secrets_pb2.DestroySecretResponse:
        """Destroys these versions for good, or a secret with all versions and its key."""
        request = secrets_pb2.DestroySecretRequest(name=name, versions=versions)
        return self._connection.call(self._stub.DestroySecret, request)


def value_of(secret: secrets_pb2.GetSecretResponse) -> dict[str, Any]:
    """The fields of a version as Python values, bytes as bytes."""
    value: dict[str, Any] = _bytes_again(_plain(secret.data))
    return value


def struct_of(data: Mapping[str, Any]) -> struct_pb2.Struct:
    """The fields of a secret as messages have them. Raises InvalidArgument, also for numbers that would lose digits."""
    try:
        if isinstance(data, Mapping):
            return json_format.ParseDict(_as_json(data), struct_pb2.Struct())
    # Its text would have the value.
    except (json_format.ParseError, TypeError, ValueError, AttributeError, RecursionError):
        pass
    message = "A secret has fields with names: text, numbers, true or false, lists, mappings and bytes."
    raise InvalidArgument(message, code="INVALID_ARGUMENT", reason="VALUE_UNSUPPORTED")


def _as_json(value: Any) -> Any:
    """The value with bytes as JSON has them. An account number must not come back with other digits."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {BINARY: base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, int) and abs(value) > 2**53:
        message = "A whole number beyond 2^53 would lose digits. Write it as text."
        raise InvalidArgument(message, code="INVALID_ARGUMENT", reason="NUMBER_INEXACT")
    return value


def _plain(data: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct makes a double of every number: whole ones are whole again."""
    value: dict[str, Any] = _whole(json_format.MessageToDict(data))
    return value


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value


def _bytes_again(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {BINARY}:
            return base64.b64decode(value[BINARY])
        return {key: _bytes_again(item) for key, item in value.items()}
    return [_bytes_again(item) for item in value] if isinstance(value, list) else value


def _timestamp(moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    if moment is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment)
    return stamp
