"""Between the vault's records and the messages of SecretService."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.message import Message

from services.secrets.vault_records import SecretSummary, SecretValue, SecretVersion
from services.secrets.vault_values import MAX_BYTES, SecretTooLarge
from services.shared.errors import InvalidArgument
from strongroom.secrets.v1 import secrets_pb2

# A one-digit number takes 2 bytes of JSON in a list, and 13 in a message.
_MOST_BYTES = 8 * MAX_BYTES
# Up to here a double holds every whole number.
_EXACT = 2**53

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def data_of(
    request: secrets_pb2.CreateSecretRequest | secrets_pb2.UpdateSecretRequest | secrets_pb2.StageSecretVersionRequest,
) -> dict[str, object]:
    """The fields of a secret that is written. Raises SecretTooLarge, InvalidArgument."""
    # Looked at before every value is: no value of 64 KiB as JSON is so large as a message.
    if request.data.ByteSize() > _MOST_BYTES:
        raise SecretTooLarge(request.data.ByteSize())
    return _object(request.data)


def version_message(version: SecretVersion) -> secrets_pb2.SecretVersion:
    return secrets_pb2.SecretVersion(
        name=version.name,
        version=version.version,
        created_at=timestamp(version.created_at),
        created_by=version.created_by,
        stage=version.stage,
        expires_at=timestamp(version.expires_at),
        deleted_at=timestamp(version.deleted_at),
        destroyed_at=timestamp(version.destroyed_at),
    )


def value_message(value: SecretValue) -> secrets_pb2.GetSecretResponse:
    about = value.about
    return secrets_pb2.GetSecretResponse(
        name=about.name,
        version=about.version,
        data=_struct(value.data),
        created_at=timestamp(about.created_at),
        created_by=about.created_by,
        stage=about.stage,
        expires_at=timestamp(about.expires_at),
    )


def summary_message(secret: SecretSummary) -> secrets_pb2.SecretSummary:
    return secrets_pb2.SecretSummary(
        name=secret.name,
        current_version=secret.current_version,
        created_at=timestamp(secret.created_at),
        updated_at=timestamp(secret.updated_at),
        labels=secret.labels,
        expires_at=timestamp(secret.expires_at),
        deleted_at=timestamp(secret.deleted_at),
    )


def timestamp(moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    if moment is None:
        return None
    # Timestamp.FromDatetime says the same by way of two calendars.
    seconds, micros = divmod((moment - _EPOCH) // _MICROSECOND, 1_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=micros * 1000)


def moment(request: Message, field: str) -> datetime | None:
    """A timestamp of a request; None if it is not set. Raises InvalidArgument."""
    if not request.HasField(field):
        return None
    stamp: timestamp_pb2.Timestamp = getattr(request, field)
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        message = f"{field} is no moment between the years 1 and 9999."
        raise InvalidArgument(message, reason="FIELD_INVALID") from None


def _struct(data: Mapping[str, Any]) -> struct_pb2.Struct:
    # A third of the time of json_format.ParseDict, which looks at every field of every message for its name.
    struct = struct_pb2.Struct()
    struct.update(data)
    return struct


def _object(struct: struct_pb2.Struct) -> dict[str, object]:
    return {name: _json(value) for name, value in struct.fields.items()}


def _json(value: struct_pb2.Value) -> object:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _object(value.struct_value)
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
