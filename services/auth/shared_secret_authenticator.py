"""Tokens signed with a secret that another program of the user's shares with us (`JWT_SECRET`): HS256, nothing else.

Whoever has the secret can be anyone. Prefer an OpenID provider; this is for programs that make such tokens already.
"""

from collections.abc import Callable
from datetime import datetime

from services.auth import bearer_tokens
from services.auth.admission import Attempt, Rejected
from services.auth.bearer_tokens import TokenRefused, UnverifiedToken, VerifiedTokens
from services.auth.outside_credentials import credential_id
from services.auth.roles import ROLES
from services.shared.identity import Principal
from services.shared.tokens import ACCESS_AUDIENCE

KIND = "jwt"

_ALGORITHM = "HS256"
# RFC 7518, section 3.2: a key of the hash's size or larger.
_MIN_BYTES = 32
_MIN_DIFFERENT = 8
# What stands in examples: https://github.com/wallarm/jwt-secrets lists some thousand more.
_EXAMPLES = ("change", "example", "your-", "your_", "yoursecret", "placeholder", "in-production", "in production")


def check_secret(secret: str) -> bytes:
    """The secret as a key. Raises ValueError, without it, for one that is short or stands in examples."""
    key = secret.encode()
    if len(key) < _MIN_BYTES:
        raise ValueError(f"JWT_SECRET must have {_MIN_BYTES} bytes or more. Make one with: openssl rand -base64 48")
    if len(set(key)) < _MIN_DIFFERENT or any(example in secret.lower() for example in _EXAMPLES):
        raise ValueError("JWT_SECRET is one that stands in examples. Make one with: openssl rand -base64 48")
    return key


class SharedSecretAuthenticator:
    """Judges the tokens that say they are HS256. It knows one key, which verifies nothing but these.

    Claims: `sub` and `exp` must be there, `role` names one of our roles; `aud` and `iss` must be ours, if given.
    """

    def __init__(self, key: bytes, issuers: frozenset[str], clock: Callable[[], datetime]) -> None:
        self._key = key
        self._issuers = issuers
        self._clock = clock
        self._verified = VerifiedTokens()

    def judge(self, attempt: Attempt) -> Principal | Rejected | None:
        token = bearer_tokens.read(attempt.authorization)
        if token is None or token.algorithm != _ALGORITHM:
            return None
        now = self._clock().timestamp()
        principal = self._verified.find(token.text, now)
        if principal is None:
            try:
                principal, ends = self._judge(token, now)
            except TokenRefused as refused:
                return Rejected(f"{KIND}: {refused}")
            self._verified.add(token.text, principal, ends, now)
        return principal

    def _judge(self, token: UnverifiedToken, now: float) -> tuple[Principal, int]:
        claims = bearer_tokens.verified(token, self._key, _ALGORITHM)
        ends = bearer_tokens.check_times(claims, now, issued=False)
        if "aud" in claims and not bearer_tokens.names_audience(claims, ACCESS_AUDIENCE):
            raise TokenRefused("audience")
        if "iss" in claims and claims["iss"] not in self._issuers:
            raise TokenRefused("issuer")
        name = bearer_tokens.subject(claims, "sub")
        role = ROLES.get(str(claims.get("role", "")))
        if role is None:
            raise TokenRefused("no role")
        credential = credential_id(KIND, ends, token.text)
        return Principal(f"{KIND}:{name}", name, credential, grants=role.grants, role=role.name), ends
