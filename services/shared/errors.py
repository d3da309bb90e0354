"""Domain errors: what went wrong, by who can mend it. Nothing here knows gRPC; `status.py` maps classes to codes."""

from typing import ClassVar


class DomainError(Exception):
    """An error a caller may see.

    Args:
        message: a sentence that says what to do; never a key, a token or a value of a secret.
        reason: UPPER_SNAKE_CASE, stable, for programs; the class's own if omitted.
        metadata: names and ids that belong to the error, for programs.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.error_reason = reason or type(self).reason
        self.metadata = metadata


class InvalidArgument(DomainError):
    """The request can never succeed as it is."""

    reason = "INVALID_ARGUMENT"


class PageTokenInvalid(InvalidArgument):
    """A page token that did not come from the method it is given to."""

    reason = "PAGE_TOKEN_INVALID"

    def __init__(self, method: str) -> None:
        super().__init__(f"page_token is not one that {method} returned.")


class Unauthenticated(DomainError):
    """No credential, or not a valid one."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(DomainError):
    """The caller is known and may not do this."""

    reason = "PERMISSION_DENIED"


class PermissionMissing(PermissionDenied):
    """No grant of the caller allows it. `hint` says what the caller may do instead."""

    reason = "PERMISSION_MISSING"

    def __init__(
        self, permission: str, resource: str, hint: str = "Ask an administrator for a key that has it."
    ) -> None:
        super().__init__(
            f"Permission {permission} on {resource} is missing. {hint}", permission=permission, resource=resource
        )


class NotFound(DomainError):
    """What the request names does not exist, or the caller may not know that it does."""

    reason = "NOT_FOUND"


class AlreadyExists(DomainError):
    """What the request would create is there already."""

    reason = "ALREADY_EXISTS"


class FailedPrecondition(DomainError):
    """The request is fine, the state is not: change the state, then repeat."""

    reason = "FAILED_PRECONDITION"


class Aborted(DomainError):
    """Somebody else was faster: read again, then repeat."""

    reason = "ABORTED"


class OutOfRange(DomainError):
    """Beyond the end."""

    reason = "OUT_OF_RANGE"


class ResourceExhausted(DomainError):
    """A limit or quota is reached.

    Args:
        retry_after: seconds after which the same request may succeed; None if waiting does not help or is not known.
    """

    reason = "RESOURCE_EXHAUSTED"

    def __init__(
        self, message: str, *, reason: str | None = None, retry_after: float | None = None, **metadata: str
    ) -> None:
        super().__init__(message, reason=reason, **metadata)
        self.retry_after = retry_after


class Unavailable(DomainError):
    """Something this service needs does not answer: repeat later."""

    reason = "UNAVAILABLE"


class DataLoss(DomainError):
    """Stored bytes are damaged or gone."""

    reason = "DATA_LOSS"
