"""What a rotator is: how one kind of secret gets a new value, in steps that can each be repeated.

    prepare ─► propose ─► [stored as pending] ─► apply ─► test ─► [current] ── grace ──► retire
                                                   └────────┴─── fails ──► rollback

A step may be cut off anywhere and then begins anew, perhaps in another process: every one of them must be able to
find its own work half done. While they go on, the current value is served, so `apply` must leave it working where the
target can have two; where it can't, `apply` and the promotion that follows are as short a gap as it gets.

A package adds a rotator by an entry point in the group `strongroom.rotators`: its name, and a callable that takes
`Surroundings` and returns a `Rotator`.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from services.secrets.rotation.targets import Targets
from services.shared.errors import FailedPrecondition, Unavailable

Data = Mapping[str, Any]


class TargetUnavailable(Unavailable):
    """The server on which a value is set does not answer: it is tried again."""

    reason = "ROTATION_TARGET_UNAVAILABLE"


class TargetRefuses(FailedPrecondition):
    """The server on which a value is set does not accept it, or what it was to be set with."""

    reason = "ROTATION_TARGET_REFUSES"


class SecretUnfit(FailedPrecondition):
    """The secret has not the fields that its rotator needs."""

    reason = "SECRET_UNFIT"


@dataclass(frozen=True)
class Surroundings:
    """What rotators are given when they are made.

    Args:
        randomness: for new values; the operating system's.
        url: where this Strongroom is reached.
        aws_endpoint: a server that stands for AWS; AWS itself if empty.
    """

    randomness: random.Random = field(repr=False)
    clock: Callable[[], datetime]
    targets: Targets
    url: str = ""
    aws_endpoint: str = ""


@dataclass(frozen=True)
class Rotation:
    """One rotation, as its rotator sees it.

    Args:
        id: a ULID, the same in every step and every repetition.
        current: the value that is served now.
        notes: what `prepare` returned; kept, and no secret.
        grace: how long the value before shall work on.
        read: the current value of another secret that the options name.
    """

    id: str
    secret: str
    options: Data
    current: Data = field(repr=False)
    notes: Data
    grace: timedelta
    read: Callable[[str], Data] = field(repr=False)


class Rotator(ABC):
    """One kind of secret. Steps raise DomainErrors; their messages are shown, so they hold nothing of a value."""

    @abstractmethod
    def check(self, options: Data) -> frozenset[str]:
        """The names of other secrets that the options make it read. Raises OptionsInvalid, TargetForbidden."""

    def prepare(self, rotation: Rotation) -> Data:
        """What must be known before `propose` does anything outside, to find its traces later. Changes nothing."""
        return {}

    @abstractmethod
    def propose(self, rotation: Rotation) -> Data:
        """All fields of the new value. Repeated if it was cut off, its answer lost: it removes what it left then."""

    def apply(self, rotation: Rotation, pending: Data) -> None:  # noqa: B027 - may stay empty
        """Makes the target accept the new value."""

    def test(self, rotation: Rotation, pending: Data) -> None:  # noqa: B027 - may stay empty
        """Raises unless the new value works."""

    def rollback(self, rotation: Rotation, pending: Data | None) -> None:  # noqa: B027 - may stay empty
        """Takes back what `propose` and `apply` did, so that `rotation.current` works.

        `pending` is None if nothing was stored, so nothing applied; empty if somebody destroyed what was.
        """

    def retire(self, rotation: Rotation, previous: Data) -> None:  # noqa: B027 - may stay empty
        """Ends the value before, which is no longer served. `rotation.current` is what is served now."""


def text_field(data: Data, name: str, secret: str) -> str:
    """A field that must be there and be text. Raises SecretUnfit."""
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise SecretUnfit(f"Secret {secret!r} needs a field {name!r} with text.", secret=secret, field=name)
    return value
