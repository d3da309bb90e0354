"""Key sets (RFC 7517) of other issuers: fetched, kept, and asked for again when a token names an unknown key."""

import json
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from services.auth import outbound
from services.auth.outbound import Outbound, PeerUnavailable
from services.auth.trust_files import TrustedIssuer

# A key that its issuer withdrew is believed for no longer.
_FRESH = timedelta(minutes=10)
# While the issuer does not answer, its last keys are believed for so long.
_STALE = timedelta(hours=1)
# Between two fetches, however many unknown keys tokens name: forged ones must cost the issuer nothing.
_PAUSE = timedelta(seconds=10)
# Threads that may wait for the first keys of an issuer; the others are told to try again.
_WAITING = 4
_WAIT_SECONDS = 6.0
_MAX_KEYS = 100
_MIN_RSA_BITS = 2048
_MAX_KEY_ID = 512
_DISCOVERY = "/.well-known/openid-configuration"

_log = structlog.get_logger()


class KeySet:
    """The keys of one issuer."""

    def __init__(self, issuer: TrustedIssuer, web: Outbound, clock: Callable[[], datetime]) -> None:
        self._issuer = issuer
        self._web = web
        self._clock = clock
        # As they are published, by id.
        self._keys: dict[str, Mapping[str, Any]] = {}
        self._fetched = self._tried = datetime.min.replace(tzinfo=clock().tzinfo)
        self._lock = threading.Lock()
        self._waiting = threading.Semaphore(_WAITING)

    def key(self, key_id: str, algorithm: str) -> jwt.PyJWK | None:
        """The key of that id; None if the issuer has none for the algorithm.

        Raises PeerUnavailable if the keys can't be had.
        """
        age = self._clock() - self._fetched
        if key_id not in self._keys or age > _FRESH:
            self._refresh(wait=age > _STALE)
            if self._clock() - self._fetched > _STALE:
                raise PeerUnavailable(f"The keys of {self._issuer.name} can't be had. Try again.")
        published = self._keys.get(key_id)
        return None if published is None else _key(published, algorithm)

    def _refresh(self, *, wait: bool) -> None:
        """Fetches the keys, unless that was tried a moment ago. One thread does; the others go on with what is there,
        or wait if nothing is."""
        if not wait:
            if self._lock.acquire(blocking=False):
                try:
                    self._fetch_in_turn()
                finally:
                    self._lock.release()
        elif self._waiting.acquire(blocking=False):
            try:
                if self._lock.acquire(timeout=_WAIT_SECONDS):
                    try:
                        self._fetch_in_turn()
                    finally:
                        self._lock.release()
            finally:
                self._waiting.release()

    def _fetch_in_turn(self) -> None:
        now = self._clock()
        if now - self._tried < _PAUSE:
            return
        self._tried = now
        try:
            self._keys = self._fetch()
            self._fetched = now
        except (PeerUnavailable, ValueError) as error:
            _log.warning("keys of an issuer not fetched", issuer=self._issuer.name, error=str(error))

    def _fetch(self) -> dict[str, Mapping[str, Any]]:
        keys = _object(self._web.get(self._issuer.jwks_uri or self._discover())).get("keys")
        if not isinstance(keys, list) or len(keys) > _MAX_KEYS:
            raise ValueError("the answer is not a key set")
        return {key["kid"]: key for key in keys if isinstance(key, dict) and _verifies(key)}

    def _discover(self) -> str:
        """Where the keys are, as the issuer itself says (OpenID Connect Discovery 1.0, section 4)."""
        issuer = self._issuer.issuer
        found = _object(self._web.get(issuer.rstrip("/") + _DISCOVERY))
        uri = found.get("jwks_uri")
        # Section 4.3: another issuer's document must not speak for this one.
        if found.get("issuer") != issuer or not isinstance(uri, str):
            raise ValueError("the discovery document is another's")
        if outbound.is_loopback(uri) and not outbound.is_loopback(issuer):
            raise ValueError("the discovery document points to this machine")
        return outbound.check_url(uri)


def _verifies(published: Mapping[str, Any]) -> bool:
    """Whether the key is there to verify signatures: a symmetric one, whatever it says of itself, is not."""
    key_id = published.get("kid")
    named = isinstance(key_id, str) and 0 < len(key_id) <= _MAX_KEY_ID
    return named and published.get("kty") in ("RSA", "EC", "OKP") and published.get("use", "sig") == "sig"


def _key(published: Mapping[str, Any], algorithm: str) -> jwt.PyJWK | None:
    if published.get("alg", algorithm) != algorithm:
        return None
    try:
        key = jwt.PyJWK.from_dict(dict(published), algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    weak = isinstance(key.key, RSAPublicKey) and key.key.key_size < _MIN_RSA_BITS
    return None if weak else key


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError("the answer is not a JSON object")  # noqa: TRY004 - the content is wrong, not a type
    return value
