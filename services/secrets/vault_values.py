"""The values of secrets: JSON objects of 64 KiB at most, in which bytes are written `{"$base64": "…"}`."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from services.shared.errors import InvalidArgument

MAX_BYTES = 64 * 1024
# An object with this one key stands for bytes: JSON has none.
BINARY = "$base64"


class SecretTooLarge(InvalidArgument):
    reason = "SECRET_TOO_LARGE"

    def __init__(self, size: int) -> None:
        super().__init__(f"The value has {size} bytes; a secret holds at most {MAX_BYTES} bytes of JSON.")


class BinaryInvalid(InvalidArgument):
    reason = "BINARY_INVALID"

    def __init__(self) -> None:
        super().__init__(f'Bytes are written {{"{BINARY}": "…"}}, in base64 with its padding (RFC 4648, section 4).')


def encoded(data: Mapping[str, Any]) -> bytes:
    """As it is encrypted. Raises SecretTooLarge, BinaryInvalid."""
    _check(data)
    plaintext = json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    if len(plaintext) > MAX_BYTES:
        raise SecretTooLarge(len(plaintext))
    return plaintext


def decoded(plaintext: bytes) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(plaintext)
    return data


def _check(value: Any) -> None:
    """What says it is bytes must be: otherwise its reader fails, not its writer."""
    if isinstance(value, Mapping):
        if BINARY in value:
            _check_binary(value)
        for item in value.values():
            _check(item)
    elif isinstance(value, list):
        for item in value:
            _check(item)


def _check_binary(value: Mapping[str, Any]) -> None:
    try:
        if len(value) > 1 or base64.b64encode(base64.b64decode(value[BINARY], validate=True)).decode() != value[BINARY]:
            raise BinaryInvalid
    except (TypeError, ValueError, binascii.Error):
        raise BinaryInvalid from None
