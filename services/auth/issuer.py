"""Issues access and identity tokens."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

import jwt

from services.auth.credentials import Credentials
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
    """Signs tokens with the current key. `issuer` is the `iss` of access tokens: the public URL."""

    def __init__(
        self, keys: SigningKeys, credentials: Credentials, clock: Callable[[], datetime], issuer: str = ISSUER
    ) -> None:
        self._keys = keys
        self._credentials = credentials
        self._clock = clock
        self._issuers = {ACCESS_TYPE: issuer, IDENTITY_TYPE: ISSUER}
        self._identity_tokens: OrderedDict[tuple[Principal, str], tuple[str, float]] = OrderedDict()
        self._lock = threading.Lock()

    def exchange(self, caller: Principal) -> tuple[str, int]:
        """An access token for a caller with another credential, and the seconds until it expires; it never outlives the
        credential.

        Raises TokenNotExchangeable for a caller with an access token: a token that could renew itself would never end.
        """
        if caller.token_type == ACCESS_TYPE:
            raise TokenNotExchangeable(
                "An access token can't be exchanged for another one. Send what you got it for, such as the API key."
            )
        now = self._clock()
        end = self._credentials.expires_at(caller.credential_id)
        seconds = ACCESS_SECONDS if end is None else min(ACCESS_SECONDS, int((end - now).total_seconds()))
        if seconds <= 0 or self._credentials.unusable(caller.credential_id):
            raise InvalidToken
        return self.access_token(caller, seconds), seconds

    def access_token(self, principal: Principal, seconds: int = ACCESS_SECONDS) -> str:
        """A token that stands for the principal everywhere, for so many seconds.

        Ten minutes at most: a signing key is published for no longer after it has signed its last token.
        """
        if not 0 < seconds <= ACCESS_SECONDS:
            raise ValueError(f"an access token lives 1 to {ACCESS_SECONDS} seconds")
        return self._sign(principal, ACCESS_TYPE, ACCESS_AUDIENCE, self._clock(), seconds)

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
        claims = {"iss": self._issuers[kind], "aud": audience, "iat": issued, "exp": issued + seconds, "jti": new_id()}
        headers = {"typ": kind, "kid": key.kid}
        return jwt.encode(claims | principal_claims(principal), key.private, ALGORITHM, headers)
