"""Credentials of every kind, as far as a token that was made of one must know: is it still good?

The id of a credential begins with its kind: `key:` a version of an API key, `session:` a sign-in.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol


class CredentialSource(Protocol):
    """Keeps credentials of one kind."""

    def unusable(self, credential_id: str) -> bool:
        """Whether it was revoked, has expired or does not exist."""
        ...

    def revoked_since(self, moment: datetime) -> list[str]:
        """The ids of those that were ended at or after the moment."""
        ...

    def expires_at(self, credential_id: str) -> datetime | None:
        """When it ends by itself, as far as is known; None if it does not."""
        ...


class Credentials:
    """All of them, by kind."""

    def __init__(self, sources: Mapping[str, CredentialSource]) -> None:
        self._sources = sources

    def unusable(self, credential_id: str) -> bool:
        """Whether tokens of this credential must be refused from now on."""
        source = self._sources.get(credential_id.partition(":")[0])
        return source is None or source.unusable(credential_id)

    def expires_at(self, credential_id: str) -> datetime | None:
        """When the credential ends by itself: no token made of it may live longer. None if it does not."""
        source = self._sources.get(credential_id.partition(":")[0])
        return None if source is None else source.expires_at(credential_id)

    def revoked_since(self, moment: datetime) -> list[str]:
        """The ids of all credentials that were ended at or after the moment."""
        return [credential for source in self._sources.values() for credential in source.revoked_since(moment)]
