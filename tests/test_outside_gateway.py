"""Identities from outside and signing keys, through the gateway of an installation that trusts them."""

import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
import yaml

from strongroom.auth.v1 import tokens_pb2 as pb
from strongroom.auth.v1.tokens_pb2_grpc import TokenServiceStub
from strongroom.aws import signed_caller_identity
from strongroom.models.v1 import models_pb2 as models
from strongroom.models.v1.models_pb2_grpc import ModelServiceStub
from strongroom.secrets.v1 import secrets_pb2 as secrets_pb
from strongroom.secrets.v1.secrets_pb2_grpc import SecretServiceStub
from tests.aws import ANYBODY, REGION, assume_role, client, moto
from tests.callers import Caller, administrator
from tests.oidc_provider import AUDIENCE, Provider, provider
from tests.stack import RunningStack, Stack

SECRET = "uP4Jt0cVx9Rk2mQz7Ws5Yb8Nd3Hg6Lf1"
FIXED_TOKEN = "fixed-token-T4r8Yq1Zb6Wn3Kc9"
STATIC_KEY = "static-key-H2f7Gd5Ls0Pw8Xv4"
ROLE = "arn:aws:iam::123456789012:role/trainer"
# Of a new signing key; the gateway keeps a key set for two thirds of it.
DELAY = 6


@dataclass(frozen=True)
class Trusting:
    """An installation, and those whom it trusts."""

    stack: Stack
    issuer: Provider
    sts: str

    def bearer(self, token: str) -> Caller:
        return Caller(self.stack, f"Bearer {token}", "Authorization")


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trusting]:
    folder = tmp_path_factory.mktemp("outside")
    with provider() as issuer, moto() as sts:
        rules = [{"claim": "sub", "pattern": "repo:acme/*", "permission_set": "read_only"}]
        issuers, roles = folder / "issuers.yaml", folder / "roles.yaml"
        issuers.write_text(yaml.safe_dump([{"issuer": issuer.url, "audience": AUDIENCE, "rules": rules}]))
        roles.write_text(yaml.safe_dump([{"arn": ROLE, "permission_set": "read_only"}]))
        _store_secrets(sts)
        running = RunningStack(
            folder / "data",
            STRONGROOM_OIDC_ISSUERS=str(issuers),
            STRONGROOM_AWS_ROLES=str(roles),
            STRONGROOM_AWS_STS_ENDPOINT=sts,
            STRONGROOM_SIGNING_KEY_DELAY_SECONDS=str(DELAY),
            STRONGROOM_RATE_LIMIT="off",
            JWT_SECRET="aws-sm://strongroom#jwt",
            AUTH_TOKEN="aws-sm://strongroom#token",
            STRONGROOM_API_KEYS="aws-ssm:///strongroom/keys",
            AWS_ENDPOINT_URL=sts,
            **ANYBODY,
        )
        with running as stack:
            yield Trusting(stack, issuer, sts)


def _store_secrets(url: str) -> None:
    fields = json.dumps({"jwt": SECRET, "token": FIXED_TOKEN})
    client("secretsmanager", url).create_secret(Name="strongroom", SecretString=fields)
    client("ssm", url).put_parameter(Name="/strongroom/keys", Value=f"ci:read_only:{STATIC_KEY}", Type="SecureString")


def assert_reads_models_and_no_secrets(caller: Caller) -> None:
    """Over both protocols, in all three services."""
    assert caller.rest("GET", "/api/v1/managers/default/models")[0] == 200
    assert caller.code(ModelServiceStub, "ListModels", models.ListModelsRequest(manager_id="default")) == "OK"
    status, problem = caller.rest("GET", "/api/v1/secrets/any")
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    request = secrets_pb.GetSecretRequest(name="any")
    assert caller.code(SecretServiceStub, "GetSecret", request) == "PERMISSION_DENIED"


@pytest.mark.row("S2.1")
def test_a_token_of_a_trusted_issuer_is_a_credential_everywhere(trusting: Trusting) -> None:
    caller = trusting.bearer(trusting.issuer.token())
    assert_reads_models_and_no_secrets(caller)
    name = f"oidc:{trusting.issuer.url.removeprefix('http://')}:repo:acme/ml"
    assert caller.rest("GET", "/api/v1/caller")[1]["principal"] == name
    assert caller.grpc(TokenServiceStub, "GetCaller", pb.GetCallerRequest()).principal == name


@pytest.mark.row("S2.1")
def test_a_token_with_the_shared_secret_is_a_credential_everywhere(trusting: Trusting) -> None:
    claims = {"sub": "ann", "role": "viewer", "exp": int(time.time()) + 60}
    caller = trusting.bearer(jwt.encode(claims, SECRET))
    assert_reads_models_and_no_secrets(caller)
    assert caller.rest("GET", "/api/v1/caller")[1]["role"] == "viewer"


@pytest.mark.row("S3.9")
def test_tokens_and_keys_may_be_in_secrets_manager_and_parameter_store(trusting: Trusting) -> None:
    assert_reads_models_and_no_secrets(Caller(trusting.stack, STATIC_KEY))
    assert_reads_models_and_no_secrets(trusting.bearer(FIXED_TOKEN))


@pytest.mark.row("S3.6")
def test_a_token_from_outside_is_exchanged_for_a_short_one(trusting: Trusting) -> None:
    caller = trusting.bearer(trusting.issuer.token(exp=int(time.time()) + 120))
    status, made = caller.rest("POST", "/api/v1/tokens", {})
    assert status == 201
    assert 100 < made["expires_in"] <= 120
    assert_reads_models_and_no_secrets(trusting.bearer(made["access_token"]))
    status, problem = trusting.bearer(made["access_token"]).rest("POST", "/api/v1/tokens", {})
    assert (status, problem["reason"]) == (403, "TOKEN_NOT_EXCHANGEABLE")


@pytest.mark.parametrize(
    "forged",
    [
        lambda t: t.issuer.token(aud="another"),
        lambda t: t.issuer.token(exp=int(time.time()) - 1),
        lambda t: t.issuer.token(sub="repo:evil/ml"),
        lambda t: t.issuer.token(headers={"kid": "../../etc/passwd"}),
        lambda t: t.issuer.token().rpartition(".")[0] + ".",
        lambda _: jwt.encode({"sub": "ann", "role": "root", "exp": int(time.time()) + 60}, SECRET),
        lambda _: jwt.encode({"sub": "ann", "role": "admin", "exp": int(time.time()) + 60}, SECRET[::-1]),
    ],
    ids=["audience", "expired", "no rule", "key id", "no signature", "role", "secret"],
)
def test_a_forged_token_is_401_over_both_protocols(trusting: Trusting, forged: Callable[[Trusting], str]) -> None:
    caller = trusting.bearer(forged(trusting))
    status, problem = caller.rest("GET", "/api/v1/managers/default/models")
    assert (status, problem["detail"]) == (401, "Invalid authentication credentials")
    request = models.ListModelsRequest(manager_id="default")
    assert caller.code(ModelServiceStub, "ListModels", request) == "UNAUTHENTICATED"


@pytest.fixture(scope="module")
def assumed(trusting: Trusting) -> dict[str, str]:
    return assume_role(trusting.sts, ROLE)


@pytest.mark.row("S3.9")
def test_an_aws_role_signs_in(trusting: Trusting, assumed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in assumed.items():
        monkeypatch.setenv(name, value)
    stranger = Caller(trusting.stack)
    request = signed_caller_identity(trusting.stack.url, REGION, trusting.sts)
    status, made = stranger.rest("POST", "/api/v1/tokens:aws", request)
    assert (status, made["principal"]) == (201, "aws:123456789012/role/trainer")
    assert_reads_models_and_no_secrets(trusting.bearer(made["access_token"]))
    status, problem = stranger.rest("POST", "/api/v1/tokens:aws", request)
    assert (status, problem["reason"]) == (401, "CREDENTIAL_INVALID"), "used before"

    found = administrator(trusting.stack).rest("GET", "/api/v1/audit/events?principal=aws:123456789012/role/trainer")
    assert [event["method"].rpartition("/")[2] for event in found[1]["events"]][-1:] == ["SignInWithAws"]

    other = pb.SignInWithAwsRequest(**signed_caller_identity(trusting.stack.url, REGION, trusting.sts))
    token = stranger.grpc(TokenServiceStub, "SignInWithAws", other).access_token
    assert_reads_models_and_no_secrets(trusting.bearer(token))
    elsewhere = pb.SignInWithAwsRequest(**signed_caller_identity("https://elsewhere", REGION, trusting.sts))
    assert stranger.code(TokenServiceStub, "SignInWithAws", elsewhere) == "UNAUTHENTICATED"


@pytest.mark.row("S2.6")
def test_others_verify_our_tokens_by_discovery(trusting: Trusting) -> None:
    url = trusting.stack.url
    status, found = Caller(trusting.stack).rest("GET", "/.well-known/openid-configuration")
    assert (status, found["issuer"]) == (200, url)
    token = administrator(trusting.stack).rest("POST", "/api/v1/tokens", {})[1]["access_token"]
    key = jwt.PyJWKClient(found["jwks_uri"]).get_signing_key_from_jwt(token)
    algorithms = found["id_token_signing_alg_values_supported"]
    claims = jwt.decode(token, key, algorithms, audience="strongroom", issuer=found["issuer"])
    assert claims["name"] == "administrator"


class Traffic:
    """Requests without a pause, of several callers at once, each answered 200 or counted by what it was."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, name: str, ask: Callable[[], str]) -> None:
        def run() -> None:
            while not self._stop.is_set():
                outcome = ask()
                with self._lock:
                    self.outcomes[f"{name}: {outcome}"] += 1
                time.sleep(0.01)

        self._threads.append(threading.Thread(target=run))

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.row("S2.6")
def test_no_request_fails_while_the_signing_key_rotates(trusting: Trusting) -> None:
    admin = administrator(trusting.stack)
    key = admin.rest("POST", "/api-keys", {"name": "traffic", "permission_set": "read_only"})[1]["key"]
    path, request = "/api/v1/managers/default/models", models.ListModelsRequest(manager_id="default")
    by_key = Caller(trusting.stack, key)
    old_token = by_key.rest("POST", "/api/v1/tokens", {})[1]["access_token"]
    kids: set[str] = set()

    def fresh() -> Caller:
        token = by_key.rest("POST", "/api/v1/tokens", {})[1]["access_token"]
        kids.add(jwt.get_unverified_header(token)["kid"])
        return trusting.bearer(token)

    traffic = Traffic()
    for name, caller in {
        "key": lambda: by_key,
        "old token": lambda: trusting.bearer(old_token),
        "fresh token": fresh,
        "outside": lambda: trusting.bearer(trusting.issuer.token()),
    }.items():
        traffic.add(f"{name} over REST", lambda caller=caller: str(caller().rest("GET", path)[0]))
        traffic.add(f"{name} over gRPC", lambda caller=caller: caller().code(ModelServiceStub, "ListModels", request))
    with traffic:
        time.sleep(1)
        status, rotated = admin.rest("POST", "/api/v1/signing-keys:rotate", {})
        assert status == 201
        new = rotated["signing_key"]["kid"]
        time.sleep(DELAY + 4)
    assert {outcome.rpartition(": ")[2] for outcome in traffic.outcomes} == {"200", "OK"}, traffic.outcomes
    assert len(traffic.outcomes) == 8
    assert len(kids) == 2, "tokens of both keys were in use"
    assert new in kids
    listed = admin.rest("GET", "/api/v1/signing-keys")[1]["signing_keys"]
    assert [(shown["kid"] == new, shown["state"]) for shown in listed] == [(True, "signing"), (False, "retiring")]
    with urllib.request.urlopen(f"{trusting.stack.url}/.well-known/jwks.json") as answer:  # noqa: S310
        assert answer.read().count(b'"kid"') == 2


def test_no_secret_is_in_a_log(trusting: Trusting) -> None:
    """After all of the above, which runs before."""
    token: Any = trusting.issuer.token()
    assert trusting.bearer(token).rest("GET", "/api/v1/caller")[0] == 200
    logged = "".join(log.read_text() for log in (trusting.stack.data_dir / "logs").glob("*.log*"))
    for secret in (SECRET, FIXED_TOKEN, STATIC_KEY, token, token.rpartition(".")[2]):
        assert secret not in logged
