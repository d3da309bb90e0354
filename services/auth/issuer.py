"""Issues access and identity tokens."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

import jwt

from services.auth.api_keys import ApiKeys
from services.auth.signing_keys import SigningKeys
from services.shared.errors import PermissionDenied
from services.shared.identity import Principal
from services.shared.ids import new_id
from services.shared.tokens import (
    ACCESS_AUDIENCE,
    ACCESS_SECONDS,
    ACCESS_TYPE,
    ALGORITHM,
    IDENTITY_SECONDS,
    IDENTITY_TYPE,
    ISSUER,
    InvalidToken,
    principal_claims,
)

# An identity token is handed out again for half of its life: signing it costs more than the rest of a check, and a
# service finds a token that it has verified before in less than a microsecond.
_REUSE_SECONDS = IDENTITY_SECONDS / 2
_CACHED_TOKENS = 4096


class TokenNotExchangeable(PermissionDenied):
    reason = "TOKEN_NOT_EXCHANGEABLE"


class TokenIssuer:
    """Signs tokens with the current key."""

    def __init__(self, keys: SigningKeys, api_keys: ApiKeys, clock: Callable[[], datetime]) -> None:
        self._keys = keys
        self._api_keys = api_keys
        self._clock = clock
        self._identity_tokens: OrderedDict[tuple[Principal, str], tuple[str, float]] = OrderedDict()
        self._lock = threading.Lock()

    def exchange(self, caller: Principal) -> tuple[str, int]:
        """An access token for a caller with an API key, and the seconds until it expires; it never outlives the key.

        Raises TokenNotExchangeable for a caller with an access token: a token that could renew itself would never end.
        """
        if caller.token_type == ACCESS_TYPE:
            raise TokenNotExchangeable("An access token can't be exchanged for another one. Send the API key.")
        now = self._clock()
        key = self._api_keys.get(caller.credential_id.removeprefix("key:"))
        left = ACCESS_SECONDS if key.expires_at is None else int((key.expires_at - now).total_seconds())
        seconds = min(ACCESS_SECONDS, left)
        if seconds <= 0 or not key.active(now):
            raise InvalidToken
        return self._sign(caller, ACCESS_TYPE, ACCESS_AUDIENCE, now, seconds), seconds

    def identity_token(self, principal: Principal, audience: str) -> str:
        """A token that tells the service `audience` who the principal is, good for 30 to 60 seconds."""
        wanted = (principal, audience)
        now = self._clock()
        with self._lock:
            token, reusable_until = self._identity_tokens.get(wanted, ("", 0.0))
        if now.timestamp() >= reusable_until:
            token = self._sign(principal, IDENTITY_TYPE, audience, now, IDENTITY_SECONDS)
            with self._lock:
                self._identity_tokens[wanted] = (token, now.timestamp() + _REUSE_SECONDS)
                self._identity_tokens.move_to_end(wanted)
                while len(self._identity_tokens) > _CACHED_TOKENS:
                    self._identity_tokens.popitem(last=False)
        return token

    def _sign(self, principal: Principal, kind: str, audience: str, now: datetime, seconds: int) -> str:
        key = self._keys.current()
        issued = int(now.timestamp())
        claims = {"iss": ISSUER, "aud": audience, "iat": issued, "exp": issued + seconds, "jti": new_id()}
        headers = {"typ": kind, "kid": key.kid}
        return jwt.encode(claims | principal_claims(principal), key.private, ALGORITHM, headers)
