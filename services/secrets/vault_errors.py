"""What can be wrong with a secret or a version of one."""

from services.shared.errors import Aborted, AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound


class SecretNotFound(NotFound):
    reason = "SECRET_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no secret {name!r}.", secret=name)


class SecretDeleted(NotFound):
    """It can be brought back; until then it is treated as one that is not there."""

    reason = "SECRET_DELETED"

    def __init__(self, name: str) -> None:
        super().__init__(f"Secret {name!r} is deleted. Undelete it, or write it anew.", secret=name)


class SecretVersionNotFound(NotFound):
    reason = "SECRET_VERSION_NOT_FOUND"

    def __init__(self, name: str, version: int) -> None:
        super().__init__(f"Secret {name!r} has no version {version}.", secret=name, version=str(version))


class SecretStageNotFound(NotFound):
    reason = "SECRET_STAGE_NOT_FOUND"

    def __init__(self, name: str, stage: str) -> None:
        super().__init__(f"Secret {name!r} has no {stage} version.", secret=name, stage=stage)


class SecretVersionDeleted(NotFound):
    reason = "SECRET_VERSION_DELETED"

    def __init__(self, name: str, version: int) -> None:
        super().__init__(
            f"Version {version} of secret {name!r} is deleted. Undelete it first.", secret=name, version=str(version)
        )


class SecretVersionDestroyed(NotFound):
    reason = "SECRET_VERSION_DESTROYED"

    def __init__(self, name: str, version: int) -> None:
        super().__init__(
            f"Version {version} of secret {name!r} is destroyed; nothing brings it back.",
            secret=name,
            version=str(version),
        )


class SecretVersionExpired(FailedPrecondition):
    reason = "SECRET_VERSION_EXPIRED"

    def __init__(self, name: str, version: int) -> None:
        super().__init__(
            f"Version {version} of secret {name!r} has expired. Write a new one.", secret=name, version=str(version)
        )


class SecretExists(AlreadyExists):
    reason = "SECRET_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__(f"Secret {name!r} exists already. Update it, or choose another name.", secret=name)


class VersionMismatch(Aborted):
    reason = "VERSION_MISMATCH"

    def __init__(self, name: str, expected: int, current: int) -> None:
        super().__init__(
            f"Secret {name!r} is at version {current}, not {expected}. Read it again, then repeat the change.",
            secret=name,
            current_version=str(current),
        )


class VersionPending(FailedPrecondition):
    """A secret has one pending version at most."""

    reason = "VERSION_PENDING"

    def __init__(self, name: str, version: int) -> None:
        super().__init__(
            f"Version {version} of secret {name!r} is pending. Promote or discard it first.",
            secret=name,
            version=str(version),
        )


class VersionNotPending(FailedPrecondition):
    reason = "VERSION_NOT_PENDING"

    def __init__(self, name: str, version: int) -> None:
        super().__init__(
            f"Version {version} of secret {name!r} is not pending: it can't be promoted or discarded.",
            secret=name,
            version=str(version),
        )


class ExpiryPast(InvalidArgument):
    reason = "EXPIRY_PAST"

    def __init__(self) -> None:
        super().__init__("expires_at is not in the future.")


class LabelsInvalid(InvalidArgument):
    reason = "LABELS_INVALID"


class SecretDamaged(DataLoss):
    reason = "SECRET_DAMAGED"

    def __init__(self, name: str) -> None:
        super().__init__(f"The stored value of secret {name!r} is damaged. Restore it from a backup.", secret=name)
