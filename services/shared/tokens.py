"""The three tokens a service accepts: JWTs signed with ES256 (RFC 7518), told apart by `typ` (RFC 8725, section 3.11).

| token | `typ` | made by | for |
|---|---|---|---|
| access token | `at+jwt` | auth | callers, as `Authorization: Bearer` (RFC 9068) |
| identity token | `strongroom-identity+jwt` | auth, at the edge | one upstream service, about an API key's owner |
| service token | `strongroom-service+jwt` | each service, with its own key | one other service |
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey

from services.shared.certificates import Certificates
from services.shared.errors import Unauthenticated
from services.shared.identity import Grant, Principal, Quota
from services.shared.ids import new_id

# `iss` of identity tokens, which never leave the installation, and of access tokens where no public URL is set.
ISSUER = "strongroom"
ALGORITHM = "ES256"
ACCESS_TYPE = "at+jwt"
IDENTITY_TYPE = "strongroom-identity+jwt"
SERVICE_TYPE = "strongroom-service+jwt"
ACCESS_AUDIENCE = "strongroom"
ACCESS_SECONDS = 600
IDENTITY_SECONDS = 60
SERVICES = ("auth", "models", "secrets")

# Longer tokens are refused unread. Envoy's limit for all headers together is 60 KiB.
_MAX_TOKEN_CHARACTERS = 32_768
# Clocks of two machines may differ by this much, in seconds.
_LEEWAY = 5
# Verifying costs about 100 µs, finding a verified token less than one; it is found until it expires, no longer.
_CACHED_TOKENS = 4096

PublicKeys = Callable[[str], EllipticCurvePublicKey | None]


class InvalidToken(Unauthenticated):
    """The credential is malformed, expired, forged, revoked or meant for somebody else; which, is not told."""

    reason = "CREDENTIAL_INVALID"

    def __init__(self) -> None:
        super().__init__("Invalid authentication credentials")


@dataclass(frozen=True)
class ServiceIdentity:
    """A service's own name and private key, with which it proves to the other services who it is; and where they speak
    TLS, its certificate.
    """

    name: str
    key: EllipticCurvePrivateKey = field(repr=False)
    certificates: Certificates | None = field(default=None, repr=False)

    @classmethod
    def load(cls, name: str, identity_dir: Path, pki_dir: Path | None = None) -> "ServiceIdentity":
        """Reads `<name>.pem`; refuses a file that others may read. Raises CertificateError for what is in `pki_dir`."""
        file = identity_dir / f"{name}.pem"
        if file.stat().st_mode & 0o077:
            raise PermissionError(f"{file} may be read by others; run: chmod 600 {file}")
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise ValueError(f"{file} is not a P-256 private key")  # noqa: TRY004 - the content is wrong, not a type
        return cls(name, key, Certificates(pki_dir, name) if pki_dir else None)

    def token(self, audience: str, now: float | None = None) -> str:
        """A service token for `audience`, good for a minute."""
        issued = int(time.time() if now is None else now)
        claims = {"iss": self.name, "sub": self.name, "aud": audience, "iat": issued, "exp": issued + IDENTITY_SECONDS}
        return jwt.encode(claims | {"jti": new_id()}, self.key, ALGORITHM, {"typ": SERVICE_TYPE, "kid": self.name})


def load_service_keys(identity_dir: Path) -> dict[str, EllipticCurvePublicKey]:
    """The public keys of all services whose `<name>.pub.pem` is there, by name."""
    keys = {}
    for name in SERVICES:
        file = identity_dir / f"{name}.pub.pem"
        if file.exists():
            key = serialization.load_pem_public_key(file.read_bytes())
            if not isinstance(key, EllipticCurvePublicKey):
                raise ValueError(f"{file} is not a P-256 public key")
            keys[name] = key
    return keys


def principal_claims(principal: Principal) -> dict[str, Any]:
    """The claims that carry a principal in access and identity tokens; `_principal` reads them back."""
    return {
        "sub": principal.id,
        "name": principal.name,
        "cred": principal.credential_id,
        "kpx": principal.key_prefix,
        "role": principal.role,
        "grants": [[g.effect, list(g.permissions), list(g.resources)] for g in principal.grants],
        "quotas": [[q.usage_class, q.requests, q.per] for q in principal.quotas],
    }


class TokenVerifier:
    """Verifies the tokens that reach one service.

    Args:
        audience: the service's name.
        access_keys: finds auth's public key by its id; None for an unknown id.
        service_keys: the public keys of the services, by name.
        revoked: whether the credential of that id was revoked.
        clock: seconds since 1970.
        issuer: `iss` of access tokens: the public URL (OpenID Connect Discovery 1.0, section 4.3).
    """

    def __init__(
        self,
        audience: str,
        access_keys: PublicKeys,
        service_keys: Mapping[str, EllipticCurvePublicKey],
        revoked: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
        issuer: str = ISSUER,
    ) -> None:
        self._audience = audience
        self._issuers = {ACCESS_TYPE: issuer, IDENTITY_TYPE: ISSUER}
        self._access_keys = access_keys
        self._service_keys = service_keys
        self._revoked = revoked
        self._clock = clock
        self._verified: OrderedDict[str, tuple[Principal, float]] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, token: str) -> Principal:
        """The principal that a token stands for. Raises InvalidToken."""
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise InvalidToken
        with self._lock:
            principal, expires = self._verified.get(token, (None, 0.0))
        if principal is None or expires <= self._clock():
            principal, expires = self._verify(token)
            with self._lock:
                self._verified[token] = (principal, expires)
                while len(self._verified) > _CACHED_TOKENS:
                    self._verified.popitem(last=False)
        self.recheck(principal)
        return principal

    def recheck(self, principal: Principal) -> None:
        """Raises InvalidToken if the credential of a verified token was revoked since."""
        if not principal.service and self._revoked(principal.credential_id):
            raise InvalidToken

    def _verify(self, token: str) -> tuple[Principal, float]:
        try:
            header = jwt.get_unverified_header(token)
            kind, key_id = header.get("typ"), str(header.get("kid", ""))
            if kind == SERVICE_TYPE:
                claims = self._decode(token, self._service_keys.get(key_id), issuer=key_id, audience=self._audience)
                if claims["sub"] != key_id:
                    raise InvalidToken
                principal = Principal(id=key_id, name=key_id, service=True, token_type=SERVICE_TYPE)
                return principal, float(claims["exp"])
            audience = {ACCESS_TYPE: ACCESS_AUDIENCE, IDENTITY_TYPE: self._audience}.get(str(kind))
            if audience is None:
                raise InvalidToken
            issuer = self._issuers[str(kind)]
            claims = self._decode(token, self._access_keys(key_id), issuer=issuer, audience=audience)
            return _principal(claims, str(kind)), float(claims["exp"])
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
            raise InvalidToken from None

    def _decode(self, token: str, key: EllipticCurvePublicKey | None, *, issuer: str, audience: str) -> dict[str, Any]:
        if key is None:
            raise InvalidToken
        required = {"require": ["iss", "sub", "aud", "iat", "exp"], "verify_exp": False, "verify_iat": False}
        # The algorithm is ours, never the token's; the times are checked against our clock below.
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=audience,
            issuer=issuer,
            options=required,  # type: ignore[arg-type]
        )
        now = self._clock()
        if not (float(claims["iat"]) <= now + _LEEWAY and now < float(claims["exp"])):
            raise InvalidToken
        return claims


def _principal(claims: Mapping[str, Any], token_type: str) -> Principal:
    grants = tuple(
        Grant(effect, tuple(permissions), tuple(resources)) for effect, permissions, resources in claims["grants"]
    )
    if any(grant.effect not in ("allow", "deny") for grant in grants):
        raise InvalidToken
    return Principal(
        id=str(claims["sub"]),
        name=str(claims["name"]),
        credential_id=str(claims["cred"]),
        key_prefix=str(claims["kpx"]),
        grants=grants,
        role=str(claims.get("role", "")),
        quotas=tuple(
            Quota(str(usage_class), int(requests), per) for usage_class, requests, per in claims.get("quotas", ())
        ),
        token_type=token_type,
    )
