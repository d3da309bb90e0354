"""Credentials that somebody else issued: nothing of them is stored, so their id says all that is known.

The id is `<kind>:<seconds since 1970 at which it ends>:<digest>`. It stands in tokens that we sign, so nobody but us
could have written it.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

_DIGEST_CHARACTERS = 32


def credential_id(kind: str, ends: int, credential: str) -> str:
    """The id of a credential that ends at that time; the credential can't be had from it."""
    return f"{kind}:{ends}:{hashlib.sha256(credential.encode()).hexdigest()[:_DIGEST_CHARACTERS]}"


class OutsideCredentials:
    """A CredentialSource for all of them: they end when they said they would, and we can't revoke them."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    def unusable(self, credential_id: str) -> bool:
        """Whether it has ended."""
        return self.expires_at(credential_id) <= self._clock()

    def expires_at(self, credential_id: str) -> datetime:
        """When it ends."""
        _, seconds, _ = credential_id.split(":")
        return datetime.fromtimestamp(int(seconds), UTC)

    def revoked_since(self, moment: datetime) -> list[str]:
        """None: who issued them does not tell us."""
        return []
