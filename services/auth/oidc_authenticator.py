"""Tokens of trusted OpenID providers in `Authorization: Bearer`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from services.auth import bearer_tokens
from services.auth.admission import Attempt, Rejected
from services.auth.bearer_tokens import TokenRefused, UnverifiedToken, VerifiedTokens
from services.auth.key_sets import KeySet
from services.auth.outbound import Outbound
from services.auth.outside_credentials import credential_id
from services.auth.trust_files import ClaimRule, TrustedIssuer
from services.shared.identity import Principal

KIND = "oidc"


class OidcAuthenticator:
    """Judges the tokens whose `iss` is trusted; the others are somebody else's affair."""

    def __init__(self, issuers: Sequence[TrustedIssuer], web: Outbound, clock: Callable[[], datetime]) -> None:
        self._issuers = {issuer.issuer: (issuer, KeySet(issuer, web, clock)) for issuer in issuers}
        self._clock = clock
        self._verified = VerifiedTokens()

    def judge(self, attempt: Attempt) -> Principal | Rejected | None:
        """Raises PeerUnavailable while the issuer's keys can't be had: a token nobody could check is not a bad one."""
        token = bearer_tokens.read(attempt.authorization)
        # The claim only chooses among the keys of issuers that are trusted anyway.
        issuer = token and token.claims.get("iss")
        if token is None or not isinstance(issuer, str) or issuer not in self._issuers:
            return None
        now = self._clock().timestamp()
        principal = self._verified.find(token.text, now)
        if principal is None:
            try:
                principal, ends = _judge(token, *self._issuers[issuer], now)
            except TokenRefused as refused:
                return Rejected(f"{KIND}: {refused}")
            self._verified.add(token.text, principal, ends, now)
        return principal


def _judge(token: UnverifiedToken, issuer: TrustedIssuer, keys: KeySet, now: float) -> tuple[Principal, int]:
    if token.algorithm not in issuer.algorithms:
        raise TokenRefused("algorithm")
    key_id = token.header.get("kid")
    key = keys.key(key_id, token.algorithm) if isinstance(key_id, str) else None
    if key is None:
        raise TokenRefused("key unknown")
    claims = bearer_tokens.verified(token, key, token.algorithm)
    ends = bearer_tokens.check_times(claims, now, issued=True)
    if claims.get("iss") != issuer.issuer or not bearer_tokens.names_audience(claims, issuer.audience):
        raise TokenRefused("issuer or audience")
    name = bearer_tokens.subject(claims, issuer.principal_claim)
    _check_verified(claims, issuer.principal_claim)
    rule = next((rule for rule in issuer.rules if _holds(rule, claims)), None)
    if rule is None:
        raise TokenRefused("no rule")
    credential = credential_id(KIND, ends, token.text)
    return Principal(f"{KIND}:{issuer.name}:{name}", name, credential, grants=rule.grants, role=rule.role), ends


def _holds(rule: ClaimRule, claims: Mapping[str, Any]) -> bool:
    if rule.claim == "email" and claims.get("email_verified") is not True:
        return False
    if rule.value is not None:
        return any(text == rule.value for text in _texts(claims, rule.claim))
    return any(fnmatchcase(text, rule.pattern or "") for text in _texts(claims, rule.claim))


def _texts(claims: Mapping[str, Any], name: str) -> Iterator[str]:
    """The texts of a claim: itself or its items. Names may have dots (RFC 7519 has URLs as names) or be paths."""
    value: Any = claims.get(name)
    if value is None:
        value = claims
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            yield item


def _check_verified(claims: Mapping[str, Any], name: str) -> None:
    """Some providers let users write any e-mail address into their profile (OpenID Connect Core 1.0, section 5.7)."""
    if name == "email" and claims.get("email_verified") is not True:
        raise TokenRefused("e-mail address not verified")
