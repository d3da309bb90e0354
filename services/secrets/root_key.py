"""The root key: read once from its file, which must be private."""

import base64
import binascii
import os
from pathlib import Path

from services.secrets.envelope import KEY_BYTES

# Nobody but the owner may read, write or execute.
_OTHERS = 0o077


class RootKeyError(Exception):
    """The root key can't be used; the message names the file and what to do, never the content."""


def load(file: Path) -> bytes:
    """The 32 bytes of the root key. Raises RootKeyError."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            text = opened.read()
    except OSError as error:
        raise RootKeyError(f"The root key {file} can't be read: {error.strerror}.") from None
    if mode & _OTHERS:
        raise RootKeyError(f"The root key {file} may be read by others. Run: chmod 600 {file}")
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raise RootKeyError(f"The root key {file} is not base64. Restore it from your copy.") from None
    if len(key) != KEY_BYTES:
        raise RootKeyError(
            f"The root key {file} has {len(key)} bytes instead of {KEY_BYTES}. Restore it from your copy."
        )
    return key
