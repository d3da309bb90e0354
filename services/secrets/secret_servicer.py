"""SecretService: requests to the vault and back."""

import base64
import binascii
import math
from datetime import datetime

import grpc
from google.protobuf import json_format, struct_pb2, timestamp_pb2

from services.secrets.vault import Vault
from services.secrets.vault_records import SecretSummary, SecretVersion
from services.secrets.vault_search import Wanted, search
from services.secrets.vault_values import MAX_BYTES, SecretTooLarge
from services.shared.call import caller
from services.shared.database import Database
from services.shared.errors import InvalidArgument, PageTokenInvalid
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc

_PAGE_SIZE = 100
# A one-digit number takes 2 bytes of JSON in a list, and 13 in a message.
_MOST_BYTES = 8 * MAX_BYTES
# Up to here a double holds every whole number.
_EXACT = 2**53


class SecretServicer(secrets_pb2_grpc.SecretServiceServicer):
    """Serves secrets of the embedded provider."""

    def __init__(self, vault: Vault, database: Database) -> None:
        self._vault = vault
        self._database = database

    def CreateSecret(
        self, request: secrets_pb2.CreateSecretRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.SecretVersion:
        return _version(self._vault.create(request.name, _data(request.data), caller(context).id))

    def UpdateSecret(
        self, request: secrets_pb2.UpdateSecretRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.SecretVersion:
        version = self._vault.update(
            request.name,
            _data(request.data),
            caller(context).id,
            expected_version=request.expected_version if request.HasField("expected_version") else None,
            allow_missing=request.allow_missing,
        )
        return _version(version)

    def GetSecret(
        self, request: secrets_pb2.GetSecretRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.GetSecretResponse:
        value = self._vault.get(request.name, request.version)
        about = value.about
        return secrets_pb2.GetSecretResponse(
            name=about.name,
            version=about.version,
            data=json_format.ParseDict(dict(value.data), struct_pb2.Struct()),
            created_at=_timestamp(about.created_at),
            created_by=about.created_by,
        )

    def ListSecretVersions(
        self, request: secrets_pb2.ListSecretVersionsRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.ListSecretVersionsResponse:
        versions = self._vault.history(request.name)
        return secrets_pb2.ListSecretVersionsResponse(versions=[_version(version) for version in versions])

    def ListSecrets(
        self, request: secrets_pb2.ListSecretsRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.ListSecretsResponse:
        principal, size = caller(context), request.page_size or _PAGE_SIZE
        found = search(
            self._database,
            Wanted(request.prefix),
            visible=lambda name: principal.allows("secrets.list", f"secrets/{name}"),
            after=_after(request.page_token),
            limit=size,
        )
        token = _token(found.next)
        return secrets_pb2.ListSecretsResponse(secrets=map(_summary, found.secrets), next_page_token=token)

    def DeleteSecret(
        self, request: secrets_pb2.DeleteSecretRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.DeleteSecretResponse:
        destroyed = self._vault.destroy(request.name)
        return secrets_pb2.DeleteSecretResponse(name=request.name, destroyed_versions=destroyed)


def _data(struct: struct_pb2.Struct) -> dict[str, object]:
    # Looked at before every value is: no value of 64 KiB as JSON is so large as a message.
    if struct.ByteSize() > _MOST_BYTES:
        raise SecretTooLarge(struct.ByteSize())
    return {name: _json(value) for name, value in struct.fields.items()}


def _json(value: struct_pb2.Value) -> object:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _data(value.struct_value)
        case "list_value":
            return [_json(item) for item in value.list_value.values]
        case "number_value":
            return _number(value.number_value)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _number(number: float) -> int | float:
    """A Struct makes a double of every number; the 3 that somebody wrote is kept as 3, not as 3.0."""
    if not math.isfinite(number):
        message = "A number in data is not finite; JSON has no such numbers (RFC 8259, section 6)."
        raise InvalidArgument(message, reason="DATA_NOT_JSON")
    return int(number) if number.is_integer() and abs(number) <= _EXACT else number


def _version(version: SecretVersion) -> secrets_pb2.SecretVersion:
    return secrets_pb2.SecretVersion(
        name=version.name,
        version=version.version,
        created_at=_timestamp(version.created_at),
        created_by=version.created_by,
    )


def _summary(secret: SecretSummary) -> secrets_pb2.SecretSummary:
    return secrets_pb2.SecretSummary(
        name=secret.name,
        current_version=secret.current_version,
        created_at=_timestamp(secret.created_at),
        updated_at=_timestamp(secret.updated_at),
    )


def _timestamp(moment: datetime) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _after(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise PageTokenInvalid("ListSecrets") from None
