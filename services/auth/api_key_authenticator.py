"""API keys in the header `X-API-Key`."""

from collections.abc import Callable
from datetime import datetime

from services.auth.admission import Attempt, Rejected
from services.auth.chosen_secrets import MAX_CHARACTERS
from services.auth.key_versions import KeyVersions
from services.shared.identity import Principal


class ApiKeyAuthenticator:
    """Finds the key by the hash of its secret: one indexed read at every attempt, so an end holds at once."""

    def __init__(self, versions: KeyVersions, clock: Callable[[], datetime]) -> None:
        self._versions = versions
        self._clock = clock

    def judge(self, attempt: Attempt) -> Principal | Rejected | None:
        if attempt.api_key is None:
            return None
        if not 0 < len(attempt.api_key) <= MAX_CHARACTERS:
            return Rejected("malformed")
        key = self._versions.find(attempt.api_key)
        if key is None:
            return None
        if key.revoked_at is not None:
            return Rejected("revoked")
        if key.expires_at is not None and key.expires_at <= self._clock():
            return Rejected("expired")
        return key.principal
