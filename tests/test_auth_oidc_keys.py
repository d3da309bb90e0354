"""The keys of trusted OpenID providers, and the files that name the providers."""

import base64
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from services.auth import outbound
from services.auth.trust_files import load_issuers
from tests.auth_installation import Auth, Installation, installation, reason_of
from tests.oidc_provider import RULES, Provider, ec_key, provider, rsa_key, status, trusting

SHARED = base64.urlsafe_b64encode(b"0123456789" * 6).decode()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture
def issuer() -> Iterator[Provider]:
    """One of the test's own."""
    with provider() as running:
        yield running


def unavailable(auth: Auth, token: str) -> bool:
    """Whether nobody can check the token, for which the gateway answers 503: it is not called bad."""
    try:
        status(auth, token)
    except grpc.RpcError as error:
        return reason_of(error) == "IDENTITY_PROVIDER_UNAVAILABLE"
    return False


def test_a_new_key_is_found_and_unknown_ones_cost_the_issuer_little(installed: Installation, issuer: Provider) -> None:
    with trusting(installed, issuer) as auth:
        assert status(auth, issuer.token()) == 200
        issuer.keys["next"] = ec_key()
        issuer.publish()
        installed.clock.ahead = timedelta(seconds=11)
        try:
            assert status(auth, issuer.token("next", "ES256")) == 200
            asked = len(issuer.asked)
            for number in range(20):
                assert status(auth, issuer.token(headers={"kid": f"forged-{number}"})) == 401
            assert len(issuer.asked) == asked
        finally:
            installed.clock.ahead = timedelta()


def test_a_withdrawn_key_is_believed_for_ten_minutes_at_most(installed: Installation, issuer: Provider) -> None:
    with trusting(installed, issuer) as auth:
        token = issuer.token(exp=int(time.time()) + 3600)
        assert status(auth, token) == 200
        del issuer.keys["rsa"]
        issuer.publish()
        installed.clock.ahead = timedelta(minutes=10, seconds=1)
        try:
            assert status(auth, token) == 401
        finally:
            installed.clock.ahead = timedelta()


def test_while_the_issuer_is_down_its_last_keys_hold_for_an_hour(installed: Installation, issuer: Provider) -> None:
    with trusting(installed, issuer) as auth:
        assert status(auth, issuer.token()) == 200
        issuer.down = True
        token = issuer.token(exp=int(time.time()) + 7200)
        try:
            installed.clock.ahead = timedelta(minutes=30)
            assert status(auth, token) == 200
            installed.clock.ahead = timedelta(minutes=61)
            assert unavailable(auth, issuer.token(exp=int(time.time()) + 7200, sub="repo:acme/x"))
        finally:
            installed.clock.ahead = timedelta()


@pytest.mark.parametrize(
    "keys",
    [
        [{"kty": "oct", "kid": "rsa", "k": SHARED, "alg": "HS256"}],
        [{"kty": "oct", "kid": "rsa", "k": SHARED}],
        [1, {"kid": "rsa"}, {"kid": "rsa", "kty": "RSA", "n": 1, "e": "AQAB"}],
        [{"kid": ["rsa"], "kty": "RSA"}],
        [],
    ],
    ids=["symmetric", "symmetric without algorithm", "broken", "list as id", "none"],
)
def test_no_odd_key_opens_a_door(installed: Installation, issuer: Provider, keys: list[Any]) -> None:
    issuer.answers["/jwks"] = {"keys": keys}
    with trusting(installed, issuer) as auth:
        assert status(auth, issuer.token()) == 401
        assert status(auth, issuer.token(algorithm="HS256", key=base64.urlsafe_b64decode(SHARED))) == 401


@pytest.mark.parametrize(
    "answer",
    [
        {"keys": "none"},
        {"keys": [{}] * 200},
        b"<html>",
        b"[" * 100_000,
        b'{"keys": [], "padding": "' + b"x" * 300_000 + b'"}',
    ],
    ids=["text", "many", "html", "nested", "large"],
)
def test_what_is_no_key_set_is_no_answer(installed: Installation, issuer: Provider, answer: Any) -> None:
    issuer.answers["/jwks"] = answer
    with trusting(installed, issuer) as auth:
        assert unavailable(auth, issuer.token())


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
def test_weak_and_foreign_keys_of_a_key_set_are_not_used(installed: Installation, issuer: Provider) -> None:
    issuer.keys["weak"] = rsa_key(1024)
    issuer.keys["encryption"] = rsa_key()
    issuer.publish()
    issuer.answers["/jwks"]["keys"][-1]["use"] = "enc"
    with trusting(installed, issuer) as auth:
        assert status(auth, issuer.token("weak")) == 401
        assert status(auth, issuer.token("encryption")) == 401
        assert status(auth, issuer.token()) == 200


def test_redirects_are_not_followed(installed: Installation, issuer: Provider) -> None:
    with provider() as elsewhere:
        elsewhere.keys = issuer.keys
        elsewhere.publish()
        issuer.answers["/jwks"] = f"{elsewhere.url}/jwks"
        with trusting(installed, issuer) as auth:
            assert unavailable(auth, issuer.token())
        assert elsewhere.asked == []


def test_an_issuer_that_answers_a_byte_at_a_time_holds_nobody_for_long(
    installed: Installation, issuer: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "_SECONDS", 0.5)
    issuer.pause = 0.1
    with trusting(installed, issuer) as auth:
        began = time.monotonic()
        assert unavailable(auth, issuer.token())
        assert time.monotonic() - began < 3


def test_a_discovery_document_of_another_issuer_is_not_believed(installed: Installation, issuer: Provider) -> None:
    issuer.answers["/.well-known/openid-configuration"]["issuer"] = "https://another.example.com"
    with trusting(installed, issuer) as auth:
        assert unavailable(auth, issuer.token())
    with trusting(installed, issuer, jwks_uri=f"{issuer.url}/jwks") as auth:
        assert status(auth, issuer.token()) == 200, "what the file names needs no discovery"


GOOD = {"issuer": "https://id.example.com", "audience": "strongroom", "rules": [RULES[1]]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"issuer": "http://id.example.com"}, "https"),
        ({"issuer": "https://user:pass@id.example.com"}, "https"),
        ({"jwks_uri": "file:///etc/passwd"}, "https"),
        ({"jwks_uri": "http://169.254.169.254/keys"}, "https"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"rules": []}, "rules"),
        ({"rules": [{"claim": "sub", "value": "a"}]}, "role or permission_set"),
        ({"rules": [{"claim": "sub", "value": "a", "role": "admin", "permission_set": "predict"}]}, "role or"),
        ({"rules": [{"claim": "sub", "role": "admin"}]}, "value or pattern"),
        ({"rules": [{"claim": "sub", "value": "a", "role": "root"}]}, "there are: admin"),
        ({"audience": ""}, "audience"),
        ({"audiences": ["a"]}, "audiences"),
        ({"issuer": "https://strongroom.example.com"}, "this installation"),
    ],
)
def test_a_file_that_is_wrong_is_refused_as_a_whole(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    file = tmp_path / "issuers.yaml"
    file.write_text(yaml.safe_dump([GOOD]))
    assert load_issuers(file, "https://strongroom.example.com")[0].algorithms == ["RS256", "ES256"]
    file.write_text(yaml.safe_dump([{**GOOD, **wrong}]))
    with pytest.raises(ValueError, match=message):
        load_issuers(file, "https://strongroom.example.com")
    file.write_text(yaml.safe_dump([GOOD, GOOD]))
    with pytest.raises(ValueError, match="twice"):
        load_issuers(file, "https://strongroom.example.com")
