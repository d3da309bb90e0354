"""Access codes: a second lock on a version's data key, to which the services have no key.

    data key ──AES-256-GCM under scrypt(code)──► sealed key ──KEK──► row of the secrets service

So a key-encryption key rotates without any code, and whoever has database, stores and root key still needs the code.
What remains is guessing, which scrypt makes dear for who has all of these, and `guesses` slow for everybody else.
"""

import hashlib
import hmac
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from services.shared.errors import InvalidArgument, PermissionDenied

MAX_CODE = 1024
DATA_KEY_BYTES = 32

_FORMAT = 1
# Format; log2 of scrypt's N, r and p (OWASP's password storage cheat sheet: 2^15, 8, 3 take 32 MiB); salt; nonce.
_HEAD = struct.Struct("<BBBB16s12s")
_COST = (15, 8, 3)
_CONTEXT = b"strongroom access code v1"


class AccessCodeInvalid(InvalidArgument):
    """No code at all, or one too long."""

    reason = "ACCESS_CODE_INVALID"


class AccessCodeRefused(PermissionDenied):
    """Missing or wrong: which, is not told."""

    reason = "ACCESS_CODE_REFUSED"

    def __init__(self) -> None:
        super().__init__("This version is protected: present its access code in the header x-access-code.")


@dataclass(frozen=True)
class AccessCode:
    """A code as a caller presents it, 1 to 1024 bytes of UTF-8. Raises AccessCodeInvalid.

    Args:
        presenter: the caller's id, by which wrong guesses are counted.
    """

    text: str = field(repr=False)
    presenter: str = ""

    def __post_init__(self) -> None:
        try:
            length = len(self.text.encode())
        except UnicodeEncodeError:
            length = 0
        if not 0 < length <= MAX_CODE:
            raise AccessCodeInvalid(f"An access code has 1 to {MAX_CODE} bytes of UTF-8.")

    def check_presentable(self) -> None:
        """Raises AccessCodeInvalid for a code that no header can carry: its version could never be read.

        RFC 9110, section 5.5: visible ASCII, with spaces inside.
        """
        if not (self.text.isascii() and self.text.isprintable() and self.text == self.text.strip()):
            message = "An access code travels in a header: choose printable ASCII, without a space at its ends."
            raise AccessCodeInvalid(message)

    def fingerprint(self, key: bytes) -> bytes:
        """32 bytes by which a process that keeps `key` to itself knows again that this caller presented this code.

        With the caller: what another one opened must not tell a guesser, who is made to wait, whether a guess is right.
        """
        return hmac.digest(key, f"{self.presenter}\0{self.text}".encode(), hashlib.sha256)


def seal(code: AccessCode, data_key: bytes, context: str, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """The data key of 32 bytes, locked by the code and bound to the context; 80 bytes."""
    head = _HEAD.pack(_FORMAT, *_COST, random(16), random(12))
    return head + AESGCM(_derived(code, head)).encrypt(head[-12:], data_key, _aad(head, context))


def unseal(code: AccessCode, sealed: bytes, context: str) -> bytes | None:
    """The data key; None if the code is not the one it was locked by."""
    head, locked = sealed[: _HEAD.size], sealed[_HEAD.size :]
    # One form alone: nobody chooses for us how much memory a guess takes.
    if len(locked) != DATA_KEY_BYTES + 16 or _HEAD.unpack(head)[:4] != (_FORMAT, *_COST):
        return None
    try:
        return AESGCM(_derived(code, head)).decrypt(head[-12:], locked, _aad(head, context))
    except InvalidTag:
        return None


# One at a time in a process: what guessing takes of its memory is bounded.
_deriving = threading.Lock()


def _derived(code: AccessCode, head: bytes) -> bytes:
    _, log2_n, r, p, salt, _ = _HEAD.unpack(head)
    with _deriving:
        return Scrypt(salt=salt, length=32, n=1 << log2_n, r=r, p=p).derive(code.text.encode())


def _aad(head: bytes, context: str) -> bytes:
    return _CONTEXT + head + context.encode()
