"""A root key in a file of its own, for who has nothing better: 32 random bytes in base64, mode 0600."""

import base64
import binascii
import os
from dataclasses import dataclass, field
from pathlib import Path

from services.secrets import envelope
from services.secrets.root_keys.root_key import ROOT_KEY_BYTES, RootKeyError, WrongRootKey

# Nobody but the owner may read, write or execute.
_OTHERS = 0o077
# More than any root key has.
_MOST_BYTES = 1024
_FORMAT = 1


@dataclass(frozen=True)
class FileRootKey:
    """The key that a file held when it was read."""

    file: Path
    key: bytes = field(repr=False)
    kind: str = "file"

    @property
    def place(self) -> str:
        return str(self.file)

    def wrap(self, key: bytes, context: str) -> bytes:
        return envelope.seal(self.key, key, envelope.bind("root", _FORMAT, context))

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        try:
            return envelope.unseal(self.key, wrapped, envelope.bind("root", _FORMAT, context))
        except envelope.EnvelopeError:
            raise WrongRootKey(_another(self.place)) from None

    def check(self, sealed: bytes) -> None:
        """As of installations from before root keys wrapped a key: raises WrongRootKey if it did not seal this."""
        try:
            envelope.unseal(self.key, sealed, envelope.bind("root-check", _FORMAT))
        except envelope.EnvelopeError:
            raise WrongRootKey(_another(self.place)) from None


def load(file: Path) -> FileRootKey:
    """The root key in a file. Raises RootKeyError."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            text = opened.read(_MOST_BYTES)
    except OSError as error:
        raise RootKeyError(f"The root key {file} can't be read: {error.strerror}.") from None
    if mode & _OTHERS:
        raise RootKeyError(f"The root key {file} may be read by others. Run: chmod 600 {file}")
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raise RootKeyError(f"The root key {file} is not base64. Restore it from your copy.") from None
    if len(key) != ROOT_KEY_BYTES:
        raise RootKeyError(
            f"The root key {file} has {len(key)} bytes instead of {ROOT_KEY_BYTES}. Restore it from your copy."
        )
    return FileRootKey(file, key)


def _another(place: str) -> str:
    return f"The database was encrypted under another root key than {place}. Restore that one from your copy."
