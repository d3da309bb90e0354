"""What a provider of secrets promises, whichever it is.

A secret is a JSON object of fields under a name such as `prod/db`. Each write adds a version, known by its
**revision**: the provider's own name for it (`3`, or an id), never reused. Nothing here serialises writers: a provider
whose server has no check-and-set compares before it writes, and `Leases` keeps our writers apart.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from services.secrets import vault_values
from services.shared.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable

# Seconds until a server must have taken a connection, and until it must have answered.
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Revision:
    """A version, without its value. `created_at` is the provider's clock."""

    revision: str
    created_at: datetime | None = None


@dataclass(frozen=True)
class Value:
    """A version with its value."""

    about: Revision
    data: Data = field(repr=False)


class SecretProvider(Protocol):
    """A place that keeps secrets. Any number of threads may use it.

    Every method raises ProviderUnavailable if the server does not answer, ProviderRefused if it does not let us.
    """

    def put(self, name: str, data: Data, expected: str | None = None) -> Revision:
        """Adds a version, which is the current one from then on.

        Args:
            expected: the revision that it must follow; empty if there may be none; None if any will do.

        Raises RevisionMismatch, SecretPresent (if `expected` is empty), ValueTooLarge, NameUnusable.
        """
        ...

    def get(self, name: str, revision: str = "") -> Value:
        """Reads a version, the current one if empty. Raises SecretAbsent, RevisionAbsent, ValueUnreadable."""
        ...

    def versions(self, name: str) -> list[Revision]:
        """The versions that can be read, newest first. Raises SecretAbsent."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """The names that begin so, in no order."""
        ...

    def delete(self, name: str) -> bool:
        """Removes a secret with all versions, for good as far as the provider goes; False if there is none."""
        ...

    def check(self) -> None:
        """Returns if the provider answers and lets us list."""
        ...


class ProviderUnavailable(Unavailable):
    """It does not answer, or has trouble of its own."""

    reason = "PROVIDER_UNAVAILABLE"

    def __init__(self, why: str) -> None:
        super().__init__(f"The provider does not answer ({why}). Try again later.")


class ProviderRefused(FailedPrecondition):
    """It answers and does not let us: credentials, or a permission there."""

    reason = "PROVIDER_REFUSED"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The provider refuses this ({why}). Check the credentials that STRONGROOM_PROVIDERS names, and what they "
            "may do there."
        )


class SecretAbsent(NotFound):
    reason = "SECRET_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"The provider has no secret {name!r}.", secret=name)


class RevisionAbsent(NotFound):
    reason = "SECRET_VERSION_NOT_FOUND"

    def __init__(self, name: str, revision: str) -> None:
        super().__init__(f"Secret {name!r} has no readable version {revision!r} there.", secret=name)


class SecretPresent(AlreadyExists):
    reason = "SECRET_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__(f"The provider has a secret {name!r} already. Update it, or choose another name.", secret=name)


class RevisionMismatch(Aborted):
    reason = "VERSION_MISMATCH"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Secret {name!r} is at another version there. Read it again, then repeat the change.", secret=name
        )


class ValueTooLarge(InvalidArgument):
    reason = "SECRET_TOO_LARGE"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"The value has {size} bytes of JSON; this provider keeps at most {limit}.")


class ValueUnreadable(FailedPrecondition):
    """Somebody else wrote it."""

    reason = "SECRET_NOT_FIELDS"

    def __init__(self, name: str) -> None:
        super().__init__(f"Secret {name!r} is there, but not as a JSON object of fields.", secret=name)


class NameUnusable(InvalidArgument):
    reason = "SECRET_NAME_UNUSABLE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"This provider has no room for so long a name: it keeps {limit} characters, some take two.")


def encoded(data: Data, limit: int = vault_values.MAX_BYTES) -> str:
    """A value as providers keep it, the same text for the same fields. Raises ValueTooLarge, BinaryInvalid."""
    text = vault_values.encoded(data)
    if len(text) > limit:
        raise ValueTooLarge(len(text), limit)
    return text.decode()


def decoded(name: str, text: str | bytes) -> Data:
    """What `encoded` made, or another JSON object. Raises ValueUnreadable."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueUnreadable(name) from None
    if not isinstance(data, dict):
        raise ValueUnreadable(name)
    return data


def compared(name: str, expected: str | None, current: str) -> None:
    """For providers without check-and-set. `current` is empty if there is none.

    Raises SecretPresent, RevisionMismatch.
    """
    if expected == "" and current:
        raise SecretPresent(name)
    if expected is not None and expected != current:
        raise RevisionMismatch(name)
