"""Tokens signed with a shared secret (`JWT_SECRET`): HS256 and nothing else, our roles and nothing else."""

import hmac
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from jwt.utils import base64url_encode

from services.auth.settings import AuthSettings
from services.auth.shared_secret_authenticator import check_secret
from services.shared.channels import IDENTITY_HEADER
from strongroom.auth.v1 import tokens_pb2 as pb
from strongroom.auth.v1 import tokens_pb2_grpc
from tests.auth_installation import BOOTSTRAP_KEY, Auth, Installation, installation

SECRET = "uP4Jt0cVx9Rk2mQz7Ws5Yb8Nd3Hg6Lf1"
CALLER = "/strongroom.auth.v1.TokenService/GetCaller"
NOW = int(time.time())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture(scope="module")
def auth(installed: Installation) -> Iterator[Auth]:
    with installed.auth(jwt_secret=SECRET) as running:
        yield running


def token(secret: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    body = {"sub": "ann", "exp": int(time.time()) + 300, "role": "researcher", **claims}
    return jwt.encode({name: value for name, value in body.items() if value is not None}, secret, algorithm, headers)


def with_empty_secret() -> str:
    """What a secret read from `/dev/null` would sign; the library refuses to."""
    signing_input = token(headers={"kid": "../../../../dev/null"}).rpartition(".")[0]
    mac = hmac.digest(b"", signing_input.encode(), "sha256")
    return f"{signing_input}.{base64url_encode(mac).decode()}"


def status(auth: Auth, text: str) -> int:
    answer = auth.check(CALLER, {"authorization": f"Bearer {text}"})
    return 200 if answer.HasField("ok_response") else answer.denied_response.status.code


@pytest.mark.row("S2.1")
def test_a_token_of_a_program_that_shares_the_secret_has_its_role(auth: Auth) -> None:
    answer = auth.check(CALLER, {"authorization": f"Bearer {token()}"})
    metadata = [(IDENTITY_HEADER, answer.ok_response.headers[0].header.value)]
    who = tokens_pb2_grpc.TokenServiceStub(auth.channel).GetCaller(pb.GetCallerRequest(), metadata=metadata)
    assert (who.principal, who.name, who.role) == ("jwt:ann", "ann", "researcher")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": NOW - 1},
        {"exp": NOW + 10**6},
        {"nbf": NOW + 10**5},
        {"iat": NOW + 10**5},
        {"sub": None},
        {"sub": ""},
        {"role": None},
        {"role": "root"},
        {"role": ["admin"]},
        {"aud": "another"},
        {"iss": "https://another.example.com"},
    ],
    ids=lambda claims: next(iter(claims)),  # without the moment: every worker must find the same names
)
def test_claims_are_checked(auth: Auth, claims: dict[str, Any]) -> None:
    assert status(auth, token()) == status(auth, token(aud="strongroom", iss="strongroom")) == 200
    assert status(auth, token(**claims)) == 401


def test_another_algorithm_or_secret_is_refused(auth: Auth) -> None:
    assert status(auth, token(SECRET * 2, "HS384")) == 401
    assert status(auth, token(SECRET * 2, "HS512")) == 401
    assert status(auth, token(SECRET[::-1])) == 401
    head, body, signature = token().split(".")
    unsigned = jwt.encode({"sub": "ann", "exp": NOW + 300, "role": "admin"}, None, "none")
    assert status(auth, unsigned) == status(auth, f"{head}.{body}.") == 401
    assert status(auth, f"{head}.{jwt.encode({'sub': 'eve'}, SECRET).split('.')[1]}.{signature}") == 401


def test_our_own_public_key_signs_nothing(auth: Auth) -> None:
    [key] = tokens_pb2_grpc.TokenServiceStub(auth.channel).GetKeySet(pb.GetKeySetRequest()).keys
    public = jwt.PyJWK({field.name: value for field, value in key.ListFields()}).key
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    for form in (serialization.Encoding.PEM, serialization.Encoding.DER):
        algorithm = jwt.get_algorithm_by_name("HS256")
        signing_input = token(headers={"kid": key.kid}).rpartition(".")[0]
        mac = algorithm.sign(signing_input.encode(), public.public_bytes(form, spki))
        forged = f"{signing_input}.{base64url_encode(mac).decode()}"
        assert status(auth, forged) == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"kid": "../../../../dev/null"},
        {"kid": "' UNION SELECT 'secret"},
        {"jku": "https://evil.example.com/jwks"},
        {"jwk": {"kty": "oct", "k": "c2VjcmV0"}},
        {"x5u": "https://evil.example.com/x"},
    ],
    ids=str,
)
def test_what_a_header_says_about_keys_is_ignored(auth: Auth, headers: dict[str, Any]) -> None:
    assert status(auth, token(headers=headers)) == 200
    assert status(auth, with_empty_secret()) == status(auth, token("secret" * 6, headers=headers)) == 401


def test_our_own_tokens_are_not_read_with_it(auth: Auth) -> None:
    """A token of another kind that is presented with the secret's algorithm in its header."""
    own = auth.call(BOOTSTRAP_KEY, "TokenService", "CreateToken", pb.CreateTokenRequest()).access_token
    assert status(auth, own) == 401, "the gateway verifies those itself, and asks about bad ones alone"
    mixed = token().split(".")[0] + "." + ".".join(own.split(".")[1:])
    assert status(auth, mixed) == 401


def test_without_a_secret_no_such_token_is_accepted(installed: Installation) -> None:
    with installed.auth() as plain:
        assert status(plain, token()) == 401
        assert status(plain, with_empty_secret()) == 401


@pytest.mark.parametrize(
    "secret",
    [
        "short",
        "x" * 64,
        "change-this-in-production-please-1234567890",
        "CHANGE_ME_CHANGE_ME_CHANGE_ME_CHANGE_ME",
        "your-secret-key-that-is-rather-long-indeed",
        "your-256-bit-secret-with-something-behind-it",
    ],
)
def test_a_secret_that_others_know_keeps_the_service_from_starting(installed: Installation, secret: str) -> None:
    with pytest.raises(ValueError, match="openssl rand") as caught, installed.auth(jwt_secret=secret):
        pass
    assert secret not in str(caught.value)
    assert check_secret(SECRET)


def test_both_names_of_the_setting_count(clean_environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    assert AuthSettings().jwt_secret.get_secret_value() == SECRET
    monkeypatch.setenv("STRONGROOM_JWT_SECRET", SECRET[::-1])
    assert AuthSettings().jwt_secret.get_secret_value() == SECRET[::-1]
    assert SECRET not in repr(AuthSettings())
