"""What a root key does, wherever it is."""

from typing import Protocol

from services.shared.errors import FailedPrecondition, Unavailable

ROOT_KEY_BYTES = 32


class RootKeyError(FailedPrecondition):
    """The root key can't be used; the message says which one and what to do, never its content."""

    reason = "ROOT_KEY_UNUSABLE"


class WrongRootKey(RootKeyError):
    """The database was written under another root key."""

    reason = "ROOT_KEY_WRONG"


class RootKeyUnavailable(Unavailable):
    """The system that holds the root key does not answer. Repeat later."""

    reason = "ROOT_KEY_UNAVAILABLE"


class RootKey(Protocol):
    """Wraps the one key of 32 bytes under which all key-encryption keys are kept.

    So a root key that is elsewhere is asked at a start and at a move, not at every request.
    """

    @property
    def kind(self) -> str:
        """`file`, `transit` or `aws-kms`."""

    @property
    def place(self) -> str:
        """Where it is, for who operates it. No credential."""

    def wrap(self, key: bytes, context: str) -> bytes:
        """Wraps a key, bound to the context. Raises RootKeyError, RootKeyUnavailable."""

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        """Reverses `wrap`. Raises WrongRootKey for what this key did not wrap, RootKeyError, RootKeyUnavailable."""
