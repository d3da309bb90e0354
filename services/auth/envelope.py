"""Encryption by the key service, as the domain sees it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Envelope:
    """Encrypts small values under auth's key-encryption key. Both functions take the value and its context, which must
    be the same to decrypt; they raise when the key service does not answer."""

    encrypt: Callable[[bytes, str], bytes]
    decrypt: Callable[[bytes, str], bytes]
