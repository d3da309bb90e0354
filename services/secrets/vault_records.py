"""What is told of secrets and their versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    """What a version is to its secret. A version has one stage at most, a stage one version."""

    # Written but not in use yet.
    PENDING = "pending"
    # The one that is read where none is named.
    CURRENT = "current"
    # What was current before.
    PREVIOUS = "previous"


@dataclass(frozen=True)
class SecretVersion:
    """A version, without its value."""

    name: str
    version: int
    created_at: datetime
    created_by: str
    # A value of Stage; empty for versions before the previous one.
    stage: str = ""
    # From then on it is not served.
    expires_at: datetime | None = None
    # Since when it can't be read; it can be undeleted.
    deleted_at: datetime | None = None
    # Since when its value is gone.
    destroyed_at: datetime | None = None


@dataclass(frozen=True)
class SecretValue:
    """A version with its value."""

    about: SecretVersion
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class SecretSummary:
    """A secret in a listing."""

    name: str
    # 0 if it has none.
    current_version: int
    created_at: datetime
    updated_at: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    # Of the current version.
    expires_at: datetime | None = None
    deleted_at: datetime | None = None
