"""`strongroom-key`: an API key of this Strongroom.

The key keeps its id and what it may do. Its secrets before the new one work on for the grace period and end by
themselves; an attempt that was cut off leaves a secret that nobody knows, and makes another.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

from pydantic import StringConstraints

from services.secrets.rotation.options import FieldName, Options, SecretName
from services.secrets.rotation.rotator import (
    Data,
    Rotation,
    Rotator,
    Surroundings,
    TargetRefuses,
    TargetUnavailable,
    text_field,
)
from strongroom.client import Client
from strongroom.errors import StrongroomError, Unavailable

# The current secret is superseded before its successor is promoted: however short the grace is, a test that fails and
# another attempt must fit into it.
_SHORTEST_GRACE = timedelta(hours=1)


class ApiKeyOptions(Options):
    """Which key, and as whom to rotate it."""

    key_id: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z-]{1,64}$")]
    # The secret with the key, in its field `key`, of who may rotate the other: a key can rotate itself, but not again
    # once the answer was lost.
    admin_secret: SecretName
    key_field: FieldName = "key"


class StrongroomKey(Rotator):
    """API keys of this Strongroom."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._url = surroundings.url

    def check(self, options: Data) -> frozenset[str]:
        return frozenset({ApiKeyOptions.of(options).admin_secret})

    def propose(self, rotation: Rotation) -> Data:
        options = ApiKeyOptions.of(rotation.options)
        admin = text_field(rotation.read(options.admin_secret), "key", options.admin_secret)
        grace = math.ceil(max(rotation.grace, _SHORTEST_GRACE).total_seconds())
        with self._as(admin) as client:
            made = client.keys.rotate(options.key_id, grace_seconds=grace)
        return {**rotation.current, options.key_field: made.key}

    def test(self, rotation: Rotation, pending: Data) -> None:
        options = ApiKeyOptions.of(rotation.options)
        with self._as(text_field(pending, options.key_field, rotation.secret)) as client:
            caller = client.tokens.caller()
        if caller.principal != f"key:{options.key_id}":
            raise TargetRefuses("The key that came is another one's.")

    @contextmanager
    def _as(self, key: str) -> Iterator[Client]:
        try:
            with Client(self._url, api_key=key, direct=False) as client:
                yield client
        except Unavailable as error:
            raise TargetUnavailable(f"This Strongroom can't be reached at {self._url}: {error.message}") from None
        except StrongroomError as error:
            raise TargetRefuses(f"This Strongroom refuses: {error.message}") from None
