"""API keys in the header `X-API-Key`."""

from collections.abc import Callable
from datetime import datetime

from services.auth.admission import Attempt, Rejected
from services.auth.api_keys import ApiKeys
from services.auth.bootstrap_key import MAX_CHARACTERS
from services.auth.usage import Usage
from services.shared.identity import Principal


class ApiKeyAuthenticator:
    """Finds the key by its hash; reads its row at every attempt."""

    def __init__(self, api_keys: ApiKeys, usage: Usage, clock: Callable[[], datetime]) -> None:
        self._api_keys = api_keys
        self._usage = usage
        self._clock = clock

    def judge(self, attempt: Attempt) -> Principal | Rejected | None:
        if attempt.api_key is None:
            return None
        if not 0 < len(attempt.api_key) <= MAX_CHARACTERS:
            return Rejected("malformed")
        key = self._api_keys.find(attempt.api_key)
        if key is None:
            return None
        if key.revoked_at is not None:
            return Rejected("revoked")
        if not key.active(self._clock()):
            return Rejected("expired")
        self._usage.record(key.id)
        return key.principal()
