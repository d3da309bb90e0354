"""Authenticated encryption of keys and small values, pure.

AES-256-GCM with a random 96-bit nonce. NIST SP 800-38D (section 8.3) bounds one key to 2^32 such encryptions; a
key-encryption key comes nowhere near, and is replaced by rotation. Everything that names the value goes into the
additional authenticated data, each part with its length before it: no two lists of parts make the same bytes.
"""

import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


class EnvelopeError(Exception):
    """What should be decrypted was changed, or encrypted under another key or for another purpose."""

    def __init__(self) -> None:
        super().__init__("the ciphertext, its key or its context does not fit")


def new_key() -> bytes:
    """32 random bytes."""
    return os.urandom(KEY_BYTES)


def bind(*parts: str | int) -> bytes:
    """The additional authenticated data of a list of parts, unambiguous."""
    encoded = [str(part).encode() for part in parts]
    return b"".join(struct.pack(">I", len(part)) + part for part in encoded)


def seal(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """nonce ‖ ciphertext ‖ tag."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, aad)


def unseal(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """The plaintext of `seal`. Raises EnvelopeError."""
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise EnvelopeError
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
    except InvalidTag:
        raise EnvelopeError from None
