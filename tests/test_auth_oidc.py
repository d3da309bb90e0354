"""Tokens of trusted OpenID providers: who is let in as whom, and every way of forging one that is refused."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import hypothesis
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import strategies as st

from services.auth import bearer_tokens
from services.shared.channels import IDENTITY_HEADER
from strongroom.auth.v1 import tokens_pb2 as pb
from strongroom.auth.v1 import tokens_pb2_grpc
from tests.auth_installation import Auth, Installation, installation, reason_of
from tests.oidc_provider import AUDIENCE, CALLER, Provider, provider, published, rsa_key, status, trusting


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture(scope="module")
def issuer() -> Iterator[Provider]:
    """One that nobody changes."""
    with provider() as running:
        yield running


@pytest.fixture(scope="module")
def auth(installed: Installation, issuer: Provider) -> Iterator[Auth]:
    with trusting(installed, issuer) as running:
        yield running


def caller(auth: Auth, token: str) -> pb.GetCallerResponse:
    answer = auth.check(CALLER, {"authorization": f"Bearer {token}"})
    assert answer.HasField("ok_response"), answer
    [header] = answer.ok_response.headers
    metadata = [(IDENTITY_HEADER, header.header.value)]
    return tokens_pb2_grpc.TokenServiceStub(auth.channel).GetCaller(pb.GetCallerRequest(), metadata=metadata)


@pytest.mark.row("S2.1")
@pytest.mark.parametrize(("key_id", "algorithm"), [("rsa", "RS256"), ("ec", "ES256")])
def test_a_trusted_token_is_its_subject(auth: Auth, issuer: Provider, key_id: str, algorithm: str) -> None:
    who = caller(auth, issuer.token(key_id, algorithm))
    assert who.principal == f"oidc:{issuer.url.removeprefix('http://')}:repo:acme/ml"
    assert who.name == "repo:acme/ml"
    assert "ml.train" in who.grants[0].permissions


def test_the_first_rule_that_holds_decides(auth: Auth, issuer: Provider) -> None:
    nested = {"roles": ["other", "modelers"]}
    assert caller(auth, issuer.token(sub="a", realm_access=nested, groups=["ml-x"])).role == "researcher"
    assert "ml.predict" in caller(auth, issuer.token(sub="a", groups=["x", "ml-x"])).grants[0].permissions
    assert status(auth, issuer.token(sub="a", groups=["x"])) == 401, "no rule holds"
    assert status(auth, issuer.token(sub="a", groups={"ml-x": 1})) == 401


def test_an_address_that_nobody_verified_counts_for_nothing(auth: Auth, issuer: Provider) -> None:
    claims = {"sub": "a", "email": "eve@example.com"}
    assert caller(auth, issuer.token(**claims, email_verified=True)).role == "viewer"
    assert status(auth, issuer.token(**claims)) == 401
    assert status(auth, issuer.token(**claims, email_verified="true")) == 401


def test_another_claim_may_name_the_caller(installed: Installation, issuer: Provider) -> None:
    with trusting(installed, issuer, principal_claim="email") as auth:
        who = caller(auth, issuer.token(email="ann@example.com", email_verified=True))
        assert who.principal.endswith(":ann@example.com")
        assert status(auth, issuer.token(email="ann@example.com", email_verified=False)) == 401


@pytest.mark.row("S3.6")
def test_it_is_exchanged_for_a_token_that_ends_with_it(auth: Auth, issuer: Provider) -> None:
    answer = auth.check("/strongroom.auth.v1.TokenService/CreateToken", {"authorization": f"Bearer {issuer.token()}"})
    metadata = [(IDENTITY_HEADER, answer.ok_response.headers[0].header.value)]
    stub = tokens_pb2_grpc.TokenServiceStub(auth.channel)
    made = stub.CreateToken(pb.CreateTokenRequest(), metadata=metadata)
    assert 0 < made.expires_in <= 300
    bearer = [("authorization", f"Bearer {made.access_token}")]
    assert stub.GetCaller(pb.GetCallerRequest(), metadata=bearer).name == "repo:acme/ml"
    with pytest.raises(grpc.RpcError) as caught:
        stub.CreateToken(pb.CreateTokenRequest(), metadata=bearer)
    assert reason_of(caught.value) == "TOKEN_NOT_EXCHANGEABLE"


NOW = int(time.time())
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.dictionaries(st.text(), inner)
)
PART = st.text() | JSON.map(lambda value: part(value))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 10},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": float("inf")},
        {"exp": 10**400},
        {"exp": NOW + 10**7},
        {"iat": None},
        {"iat": NOW + 10**5},
        {"iat": NOW - 10**6},
        {"nbf": NOW + 10**5},
        {"nbf": "later"},
        {"aud": "another"},
        {"aud": ["another", "one"]},
        {"aud": None},
        {"aud": {"strongroom": 1}},
        {"sub": None},
        {"sub": ""},
        {"sub": "repo:acme/" + "x" * 300},
        {"sub": "repo:acme/a\nb"},
        {"sub": ["repo:acme/ml"]},
    ],
    ids=lambda claims: next(iter(claims)),  # without the moment: every worker must find the same names
)
def test_times_audience_and_subject_are_checked(auth: Auth, issuer: Provider, claims: dict[str, Any]) -> None:
    assert status(auth, issuer.token()) == 200
    token = issuer.token() if not claims else _encode(issuer, claims)
    assert status(auth, token) == 401


def _encode(issuer: Provider, claims: dict[str, Any]) -> str:
    """As `token`, but for what the library would not encode."""
    now = int(time.time())
    body = {"iss": issuer.url, "aud": AUDIENCE, "sub": "repo:acme/ml", "iat": now, "exp": now + 300, **claims}
    payload = json.dumps({name: value for name, value in body.items() if value is not None}).encode()
    return jwt.PyJWS().encode(payload, issuer.keys["rsa"], "RS256", {"kid": "rsa"})


def test_a_token_may_be_meant_for_several(auth: Auth, issuer: Provider) -> None:
    assert status(auth, issuer.token(aud=["another", AUDIENCE])) == 200


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_an_unsigned_token_is_refused(auth: Auth, issuer: Provider) -> None:
    _, body, signature = issuer.token().split(".")
    for algorithm in ("none", "None", "NONE", "nOnE", "", None):
        for end in ("", signature):
            assert status(auth, f"{part({'alg': algorithm, 'kid': 'rsa', 'typ': 'JWT'})}.{body}.{end}") == 401


@pytest.mark.parametrize("key_id", ["rsa", "ec"])
def test_a_public_key_is_no_shared_secret(auth: Auth, issuer: Provider, key_id: str) -> None:
    public = issuer.keys[key_id].public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    described = json.dumps(published(issuer.keys[key_id], key_id)).encode()
    forms = [public.public_bytes(form, spki) for form in (serialization.Encoding.PEM, serialization.Encoding.DER)]
    for secret in (*forms, described):
        signing_input = f"{part({'alg': 'HS256', 'kid': key_id})}.{issuer.token().split('.')[1]}"
        mac = jwt.get_algorithm_by_name("HS256").sign(signing_input.encode(), secret)
        signature = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
        assert status(auth, f"{signing_input}.{signature}") == 401


def test_an_algorithm_that_is_not_the_issuers_is_refused(auth: Auth, issuer: Provider) -> None:
    assert status(auth, issuer.token(algorithm="RS512")) == 401
    assert status(auth, issuer.token(algorithm="PS256")) == 401
    header, body, signature = issuer.token("ec", "ES256").split(".")
    assert status(auth, f"{part({'alg': 'RS256', 'kid': 'ec'})}.{body}.{signature}") == 401
    assert header


@pytest.mark.parametrize(
    "key_id",
    ["../../../../etc/passwd", "rsa' OR '1'='1", "http://127.0.0.1:1/jwks", "/dev/null", "", "x" * 5000, "rsa\u0000"],
)
def test_a_key_id_is_looked_up_and_nothing_else(auth: Auth, issuer: Provider, key_id: str) -> None:
    token = issuer.token(key=issuer.keys["rsa"], headers={"kid": key_id})
    assert status(auth, token) == 401
    assert set(issuer.asked) <= {"/.well-known/openid-configuration", "/jwks"}


def test_a_token_without_a_key_id_or_with_an_odd_one_is_refused(auth: Auth, issuer: Provider) -> None:
    for header in ({"alg": "RS256"}, {"alg": "RS256", "kid": 1}, {"alg": "RS256", "kid": ["rsa"]}):
        signing_input = f"{part(header)}.{issuer.token().split('.')[1]}"
        signed = jwt.get_algorithm_by_name("RS256").sign(signing_input.encode(), issuer.keys["rsa"])
        signature = base64.urlsafe_b64encode(signed).rstrip(b"=").decode()
        assert status(auth, f"{signing_input}.{signature}") == 401


def test_keys_that_a_token_brings_along_are_ignored(auth: Auth, issuer: Provider) -> None:
    own = rsa_key()
    with provider() as evil:
        evil.keys = {"rsa": own}
        evil.publish()
        headers: dict[str, Any]
        for headers in (
            {"jku": f"{evil.url}/jwks"},
            {"x5u": f"{evil.url}/jwks"},
            {"jwk": published(own, "rsa")},
            {"x5c": ["MIIB"]},
        ):
            assert status(auth, issuer.token(key=own, headers=headers)) == 401
            assert status(auth, issuer.token(headers=headers)) == 200, "they do no harm either"
        assert evil.asked == []


def test_critical_extensions_are_refused(auth: Auth, issuer: Provider) -> None:
    assert status(auth, issuer.token(headers={"crit": ["b64"], "b64": True})) == 401
    assert status(auth, issuer.token(headers={"crit": ["x"], "x": 1})) == 401


def test_an_issuer_that_is_not_trusted_is_never_asked(auth: Auth) -> None:
    with provider() as stranger:
        assert status(auth, stranger.token()) == 401
        assert stranger.asked == []


def test_what_is_not_quite_a_token_is_refused(auth: Auth, issuer: Provider) -> None:
    good = issuer.token()
    for text in ("", ".", "..", "a.b.c", good[:-4] + "AAAA", f"{good}.x", good + "A" * 20_000, "[].[].x", "1.1.1"):
        assert status(auth, text) == 401
    nested = base64.urlsafe_b64encode(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}").decode().rstrip("=")
    assert status(auth, f"{nested}.{nested}.x") == 401


@hypothesis.given(st.text() | st.builds("Bearer {}.{}.{}".format, PART, PART, PART))
def test_nothing_that_a_header_may_hold_is_an_error(text: str) -> None:
    token = bearer_tokens.read(text)
    if token is not None:
        with pytest.raises(bearer_tokens.TokenRefused):
            bearer_tokens.verified(token, b"0" * 32, "HS256")
