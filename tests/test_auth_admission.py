"""What the edge is told about a request: Envoy's external authorization."""

from collections.abc import Iterator

import grpc
import pytest
from structlog.testing import capture_logs

from services.auth import key_format
from services.shared.errors import Unauthenticated
from services.shared.tokens import ServiceIdentity, TokenVerifier
from services.shared.trust import verifier_for
from tests.auth_installation import (
    BOOTSTRAP_KEY,
    LIST_MODELS,
    Auth,
    Installation,
    auth_settings,
    installation,
    reason_of,
)
from tests.postgresql import Server


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture(scope="module")
def auth(installed: Installation) -> Iterator[Auth]:
    with installed.auth() as running:
        yield running


def _verifier(installed: Installation, auth: Auth, name: str) -> TokenVerifier:
    settings = auth_settings(installed.folder, auth_addr=auth.address)
    return verifier_for(name, settings, ServiceIdentity.load(name, settings.identity_dir))[0]


def test_a_key_becomes_an_identity_for_the_upstream_service_alone(installed: Installation, auth: Auth) -> None:
    made = auth.create(permission_set="predict", scopes=["managers/fraud/**"])
    answer = auth.check_key(made.key)
    assert answer.status.code == 0
    assert set(answer.ok_response.headers_to_remove) == {"x-api-key", "authorization"}
    [(_, token)] = auth.identity(made.key, LIST_MODELS)
    principal = _verifier(installed, auth, "models").verify(token)
    assert principal.id == f"key:{made.id}"
    assert principal.credential_id.startswith("key:")
    assert principal.key_prefix == made.key_prefix
    assert principal.allows("models.read", "managers/fraud/models/scorer")
    assert not principal.allows("models.read", "managers/other/models/scorer")
    assert not principal.allows("models.write", "managers/fraud/models/scorer")
    with pytest.raises(Unauthenticated):
        _verifier(installed, auth, "secrets").verify(token)


def test_the_key_given_by_the_environment_may_do_everything(installed: Installation, auth: Auth) -> None:
    [(_, token)] = auth.identity(BOOTSTRAP_KEY, LIST_MODELS)
    principal = _verifier(installed, auth, "models").verify(token)
    assert principal.name == "administrator"
    assert principal.allows("system.maintain", "system/garbage")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/api/v1/configs", "Missing authentication header: X-API-Key"),
        ("/api/managers", "Authentication required"),
        ("", "Authentication required"),
    ],
)
def test_no_credential_is_401_in_the_words_of_the_path(auth: Auth, path: str, text: str) -> None:
    with capture_logs() as logs:
        answer = auth.check(LIST_MODELS, path=path)
    assert answer.status.code == 16
    assert (answer.denied_response.status.code, answer.denied_response.body) == (401, text)
    assert [entry["event"] for entry in logs if entry["event"].startswith("auth.")] == ["auth.missing_key"]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": ""},
        {"x-api-key": "nonsense"},
        {"x-api-key": BOOTSTRAP_KEY + "x"},
        {"x-api-key": BOOTSTRAP_KEY[:-1]},
        {"x-api-key": f"{BOOTSTRAP_KEY},{BOOTSTRAP_KEY}"},
        {"x-api-key": "ключ".encode().decode()},
        {"x-api-key": "k" * 100_000},
        {"authorization": "Bearer nonsense"},
        {"authorization": f"Bearer {BOOTSTRAP_KEY}"},
        {"authorization": ""},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": BOOTSTRAP_KEY, "authorization": "Bearer nonsense"},
    ],
)
def test_a_bad_credential_is_401_and_stays_out_of_the_log(auth: Auth, headers: dict[str, str]) -> None:
    with capture_logs() as logs:
        denied = auth.check(LIST_MODELS, headers).denied_response
    assert (denied.status.code, denied.body) == (401, "Invalid authentication credentials")
    [event] = [entry for entry in logs if entry["event"] == "auth.invalid_key"]
    assert event["key_prefix"] == ""
    assert BOOTSTRAP_KEY not in repr(logs)
    assert "nonsense" not in repr(logs)


def test_the_log_names_a_bad_key_of_our_format_by_its_prefix(auth: Auth) -> None:
    key = key_format.generate()
    with capture_logs() as logs:
        auth.check_key(key.text)
    [event] = [entry for entry in logs if entry["event"] == "auth.invalid_key"]
    assert (event["key_prefix"], event["cause"]) == (key.prefix, "unknown")
    assert key.text not in repr(logs)


@pytest.mark.parametrize(
    "method",
    [
        "/strongroom.auth.v1.InfoService/GetHealth",
        "/strongroom.auth.v1.TokenService/GetKeySet",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ],
)
def test_public_methods_pass_without_a_credential_and_ignore_one(auth: Auth, method: str) -> None:
    for headers in ({}, {"x-api-key": "nonsense"}, {"x-api-key": BOOTSTRAP_KEY}):
        answer = auth.check(method, headers)
        assert answer.HasField("ok_response")
        assert not answer.ok_response.headers


@pytest.mark.parametrize(
    "method",
    [
        "/strongroom.models.v1.ModelService/Nonsense",
        "/other.Service/Method",
        "/envoy.service.auth.v3.Authorization/Check",
    ],
)
def test_unknown_methods_are_closed_with_a_key_and_without(auth: Auth, method: str) -> None:
    assert auth.check(method).denied_response.status.code == 401
    assert auth.check_key(BOOTSTRAP_KEY, method).denied_response.status.code == 404


def test_a_database_that_is_away_lets_the_gateway_ask_another_replica(
    installed: Installation, postgresql_server: Server
) -> None:
    url = postgresql_server.create_database()
    with installed.auth(database_url=url) as auth:
        assert auth.check_key(BOOTSTRAP_KEY).HasField("ok_response")
        with postgresql_server.away(url), pytest.raises(grpc.RpcError) as caught:
            auth.check_key(key_format.generate().text)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(caught.value) == "DEPENDENCY_UNAVAILABLE"


def test_an_identity_is_used_again_while_it_is_fresh(auth: Auth) -> None:
    made = auth.create(permission_set="read_only")
    tokens = {auth.identity(made.key, LIST_MODELS)[0][1] for _ in range(3)}
    assert len(tokens) == 1
