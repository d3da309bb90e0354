"""Secrets: small structured values, versioned."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format, struct_pb2

from strongroom.client.paging import pages
from strongroom.connection import Connection
from strongroom.errors import InvalidArgument
from strongroom.retries import Repeat
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc


class Secrets:
    """Secrets: small structured values, versioned."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = secrets_pb2_grpc.SecretServiceStub(connection.channel)

    def put(
        self, name: str, data: Mapping[str, Any], *, expected_version: int | None = None
    ) -> secrets_pb2.SecretVersion:
        """Writes a new version, of a new secret if there is none.

        With `expected_version` only if that is the current one, 0 for none (check-and-set): raises Conflict. Raises
        InvalidArgument for whole numbers that are beyond what is kept exactly: 64-bit floating point.
        """
        _refuse_inexact(data)
        request = secrets_pb2.UpdateSecretRequest(
            name=name,
            data=json_format.ParseDict(dict(data), struct_pb2.Struct()),
            expected_version=expected_version,
            allow_missing=True,
        )
        return self._connection.call(self._stub.UpdateSecret, request)

    def get(self, name: str, version: int = 0) -> secrets_pb2.GetSecretResponse:
        """Reads a version with its value, the current one if 0."""
        request = secrets_pb2.GetSecretRequest(name=name, version=version)
        return self._connection.call(self._stub.GetSecret, request, repeat=Repeat.SAFE)

    def list(self, prefix: str = "") -> Iterator[secrets_pb2.SecretSummary]:
        """The secrets the caller may list, by name."""
        request = secrets_pb2.ListSecretsRequest(prefix=prefix)
        for page in pages(self._connection, self._stub.ListSecrets, request):
            yield from page.secrets

    def history(self, name: str) -> Sequence[secrets_pb2.SecretVersion]:
        """The versions of a secret, newest first, without values."""
        request = secrets_pb2.ListSecretVersionsRequest(name=name)
        return self._connection.call(self._stub.ListSecretVersions, request, repeat=Repeat.SAFE).versions

    def delete(self, name: str) -> secrets_pb2.DeleteSecretResponse:
        """Deletes a secret with all versions and destroys its key."""
        request = secrets_pb2.DeleteSecretRequest(name=name)
        return self._connection.call(self._stub.DeleteSecret, request)


def _refuse_inexact(value: Any) -> None:
    """An account number must not come back with other digits."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            _refuse_inexact(item)
    elif isinstance(value, int) and abs(value) > 2**53:
        message = "A whole number beyond 2^53 would lose digits. Write it as text."
        raise InvalidArgument(message, code="INVALID_ARGUMENT", reason="NUMBER_INEXACT")
