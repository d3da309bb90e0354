"""Tokens as an attacker would make them."""

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.shared.errors import Unauthenticated
from services.shared.tokens import (
    ACCESS_AUDIENCE,
    ACCESS_TYPE,
    IDENTITY_TYPE,
    ISSUER,
    SERVICE_TYPE,
    ServiceIdentity,
    TokenVerifier,
    load_service_keys,
    principal_claims,
)
from tests.serving import ADMINISTRATOR, make_identities

NOW = 1_800_000_000


class _Case:
    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.identities = make_identities(folder)
        self.now = float(NOW)
        self.revoked: set[str] = set()
        self.verifier = TokenVerifier(
            "models",
            lambda key_id: self.key.public_key() if key_id == "k1" else None,
            load_service_keys(self.identities),
            self.revoked.__contains__,
            clock=lambda: self.now,
        )

    def claims(self, **changes: object) -> dict:
        claims = {"iss": ISSUER, "aud": ACCESS_AUDIENCE, "iat": NOW, "exp": NOW + 600} | principal_claims(ADMINISTRATOR)
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def sign(self, claims: dict, **header: str) -> str:
        return jwt.encode(claims, self.key, "ES256", {"typ": ACCESS_TYPE, "kid": "k1"} | header)

    def refused(self, token: str) -> bool:
        with pytest.raises(Unauthenticated) as caught:
            self.verifier.verify(token)
        assert caught.value.message == "Invalid authentication credentials"
        return True


@pytest.fixture
def case(tmp_path: Path) -> _Case:
    return _Case(tmp_path / "keys")


def test_an_access_token_brings_its_principal(case: _Case) -> None:
    principal = case.verifier.verify(case.sign(case.claims()))
    assert principal == replace(ADMINISTRATOR, token_type=ACCESS_TYPE)


def test_an_identity_token_is_for_one_service(case: _Case) -> None:
    token = case.sign(case.claims(aud="models"), typ=IDENTITY_TYPE)
    assert case.verifier.verify(token) == replace(ADMINISTRATOR, token_type=IDENTITY_TYPE)
    assert case.refused(case.sign(case.claims(aud="secrets"), typ=IDENTITY_TYPE))


def test_a_token_of_one_kind_is_not_taken_for_another(case: _Case) -> None:
    assert case.refused(case.sign(case.claims(aud="models")))
    assert case.refused(case.sign(case.claims(), typ=IDENTITY_TYPE))
    assert case.refused(case.sign(case.claims(), typ="JWT"))
    assert case.refused(case.sign(case.claims(iss="auth", aud="models", sub="auth"), typ=SERVICE_TYPE, kid="auth"))


def test_an_expired_token_is_refused_even_if_it_was_verified_before(case: _Case) -> None:
    token = case.sign(case.claims())
    case.verifier.verify(token)
    case.now = NOW + 600
    assert case.refused(token)


def test_a_token_from_the_future_is_refused(case: _Case) -> None:
    assert case.refused(case.sign(case.claims(iat=NOW + 60, exp=NOW + 120)))


@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "iat", "exp", "grants", "cred"])
def test_a_token_that_lacks_a_claim_is_refused(case: _Case, claim: str) -> None:
    assert case.refused(case.sign(case.claims(**{claim: None})))


@pytest.mark.parametrize("grants", ["*", [["allow"]], [[1, 2, 3]], {"allow": "*"}, [["allow", 5, ["**"]]]])
def test_malformed_grants_are_refused(case: _Case, grants: object) -> None:
    assert case.refused(case.sign(case.claims(grants=grants)))


def _encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def test_the_algorithm_none_is_refused(case: _Case) -> None:
    header = {"alg": "none", "typ": ACCESS_TYPE, "kid": "k1"}
    assert case.refused(f"{_encoded(header)}.{_encoded(case.claims())}.")


def test_the_public_key_is_no_hmac_secret(case: _Case) -> None:
    """Algorithm confusion: a token whose HMAC is keyed with the published key (RFC 8725, section 2.1)."""
    public = case.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = f"{_encoded({'alg': 'HS256', 'typ': ACCESS_TYPE, 'kid': 'k1'})}.{_encoded(case.claims())}"
    signature = base64.urlsafe_b64encode(hmac.new(public, signed.encode(), hashlib.sha256).digest()).rstrip(b"=")
    assert case.refused(f"{signed}.{signature.decode()}")


def test_a_key_in_the_header_is_not_looked_at(case: _Case) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    public = other.public_key()
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(public))
    token = jwt.encode(case.claims(), other, "ES256", {"typ": ACCESS_TYPE, "kid": "k1", "jwk": jwk})
    assert case.refused(token)


@pytest.mark.parametrize("key_id", ["", "../../k1", "k1'--", "k" * 10_000])
def test_an_unknown_key_id_is_refused(case: _Case, key_id: str) -> None:
    assert case.refused(case.sign(case.claims(), kid=key_id))


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é.é.é", "x" * 100_000, "eyJhbGciOiJFUzI1NiJ9.e30."])
def test_what_is_no_token_is_refused(case: _Case, token: str) -> None:
    assert case.refused(token)


def test_one_changed_character_is_refused(case: _Case) -> None:
    token = case.sign(case.claims())
    head, body, signature = token.split(".")
    changed = body[:20] + ("A" if body[20] != "A" else "B") + body[21:]
    assert case.refused(f"{head}.{changed}.{signature}")


def test_a_revoked_credential_is_refused(case: _Case) -> None:
    token = case.sign(case.claims())
    case.verifier.verify(token)
    case.revoked.add(ADMINISTRATOR.credential_id)
    assert case.refused(token)


def test_a_service_proves_itself_with_its_own_key(case: _Case) -> None:
    identity = ServiceIdentity.load("auth", case.identities)
    principal = case.verifier.verify(identity.token("models", now=NOW))
    assert (principal.id, principal.service, principal.grants) == ("auth", True, ())
    assert case.refused(identity.token("secrets", now=NOW))
    assert case.refused(ServiceIdentity("secrets", identity.key).token("models", now=NOW))


def test_a_service_can_not_sign_as_another(case: _Case) -> None:
    """Its key proves its own name: neither `sub` nor `iss` may say another."""
    key = ServiceIdentity.load("secrets", case.identities).key
    claims = {"iss": "secrets", "sub": "auth", "aud": "models", "iat": NOW, "exp": NOW + 60}
    header = {"typ": SERVICE_TYPE, "kid": "secrets"}
    assert case.refused(jwt.encode(claims, key, "ES256", header))
    assert case.refused(jwt.encode(claims | {"iss": "auth"}, key, "ES256", header))


def test_an_identity_that_others_may_read_is_not_used(case: _Case) -> None:
    (case.identities / "auth.pem").chmod(0o640)
    with pytest.raises(PermissionError, match="chmod 600"):
        ServiceIdentity.load("auth", case.identities)


def test_a_private_key_is_in_no_repr(case: _Case) -> None:
    assert "key" not in repr(ServiceIdentity.load("auth", case.identities))
