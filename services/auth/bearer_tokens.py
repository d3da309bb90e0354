"""JWTs that somebody else made, as far as all kinds of them are alike: how they are read, bounded and remembered.

Follows RFC 8725: the algorithm is the verifier's choice, every claim that it relies on must be there, and nothing that
a token says about keys (`jku`, `x5u`, `jwk`) is looked at.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from jwt.utils import base64url_decode

from services.shared.identity import Principal

# Characters. Tokens with some hundred groups in them are shorter.
_MAX_TOKEN = 16_384
# Clocks of two machines may differ by so many seconds.
_LEEWAY = 30
# Seconds that a token may live, from now on and in all.
MAX_LIFETIME = 86_400
# A verified token is not verified again for so many seconds, in which the issuer may withdraw its key.
_REMEMBERED = 300
_CACHED_TOKENS = 4096
_MAX_SUBJECT = 255
# Numbers above, infinity and what is no number at all (JSON as Python reads it has them) are no moments.
_END_OF_TIME = 2.0**40


class TokenRefused(Exception):
    """Why a token is refused: for the log alone."""


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """What a token says of itself. Nothing of it is true before its signature is verified."""

    text: str = field(repr=False)
    header: Mapping[str, Any]
    claims: Mapping[str, Any] = field(repr=False)

    @property
    def algorithm(self) -> str:
        return str(self.header.get("alg", ""))


def read(authorization: str | None) -> UnverifiedToken | None:
    """The JWT of an `Authorization: Bearer` header; None if there is none, or something else than a JWT."""
    scheme, _, text = (authorization or "").partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or len(text) > _MAX_TOKEN or text.count(".") != 2:
        return None
    try:
        header, claims = (json.loads(base64url_decode(part)) for part in text.split(".")[:2])
    except (ValueError, RecursionError):
        return None
    return UnverifiedToken(text, header, claims) if isinstance(header, dict) and isinstance(claims, dict) else None


def verified(token: UnverifiedToken, key: Any, algorithm: str) -> Mapping[str, Any]:
    """The token's claims, if the key signed it with that algorithm. Raises TokenRefused."""
    if "crit" in token.header:
        raise TokenRefused("critical extension")
    unchecked = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
    try:
        return jwt.decode(token.text, key, algorithms=[algorithm], options=unchecked)  # type: ignore[arg-type]
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise TokenRefused("signature") from None


def check_times(claims: Mapping[str, Any], now: float, *, issued: bool) -> int:
    """The second at which the token ends. Raises TokenRefused if it has, has not begun or lives too long.

    `issued` says whether `iat` must be there.
    """
    ends = _moment(claims, "exp")
    if ends <= now:
        raise TokenRefused("expired")
    begun = max((_moment(claims, name) for name in ("iat", "nbf") if name in claims), default=now)
    if begun > now + _LEEWAY:
        raise TokenRefused("not yet valid")
    start = _moment(claims, "iat") if issued else now
    if ends - start > MAX_LIFETIME + _LEEWAY:
        raise TokenRefused("lives too long")
    return int(ends)


def subject(claims: Mapping[str, Any], name: str) -> str:
    """The claim that names the caller. Raises TokenRefused if it is no short plain text."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_SUBJECT or not value.isprintable():
        raise TokenRefused(f"no usable claim {name}")
    return value


def names_audience(claims: Mapping[str, Any], audience: str) -> bool:
    """Whether the token is meant for that audience (RFC 7519, section 4.1.3)."""
    given = claims.get("aud")
    return given == audience or (isinstance(given, list) and audience in given)


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _END_OF_TIME:
        raise TokenRefused(f"no usable claim {name}")
    return value


class VerifiedTokens:
    """Who sent a token that was verified before. Tokens are remembered by their digest, until they end."""

    def __init__(self) -> None:
        self._found: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, text: str, now: float) -> Principal | None:
        with self._lock:
            principal, until = self._found.get(_digest(text), (None, 0.0))
        return principal if now < until else None

    def add(self, text: str, principal: Principal, ends: float, now: float) -> None:
        with self._lock:
            self._found[_digest(text)] = (principal, min(ends, now + _REMEMBERED))
            while len(self._found) > _CACHED_TOKENS:
                self._found.popitem(last=False)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
