"""Credentials that the environment gives, through the gateway: static keys, the fixed token, open mode."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.auth.v1 import tokens_pb2, tokens_pb2_grpc
from strongroom.models.v1 import models_pb2, models_pb2_grpc
from tests.callers import Caller, administrator
from tests.stack import RunningStack, Stack

TRAIN, PREDICT, BARE, FILED = (
    "static-train-key-0001",
    "static-predict-key-01",
    "a-bare-static-key-01",
    "a-key-from-a-file-01",
)
TOKEN = "a-fixed-bearer-token-01"
STUB = models_pb2_grpc.ModelServiceStub


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secrets") / "ml_api_keys.txt"
    file.touch(mode=0o600)
    file.write_text(f"# one a line\n{FILED}\n")
    return file


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> Iterator[Stack]:
    """One that its environment gives credentials, under the names that other products have for them."""
    folder = tmp_path_factory.mktemp("configured")
    given = {
        "CHAPKIT_API_KEYS": f"trainer:train:{TRAIN},predictor:predict:{PREDICT},{BARE}",
        "STRONGROOM_API_KEYS_FILE": str(key_file),
        "AUTH_TOKEN": TOKEN,
        "STRONGROOM_RATE_LIMIT": "off",
    }
    with RunningStack(folder / "data", **given) as running:
        yield running


def _lists_models(caller: Caller) -> tuple[int, str]:
    status, _ = caller.rest("GET", "/api/v1/managers/default/models")
    return status, caller.code(STUB, "ListModels", models_pb2.ListModelsRequest(manager_id="default"))


def _creates_keys(caller: Caller) -> int:
    return caller.rest("POST", "/api-keys", {"name": "x", "permission_set": "read_only"})[0]


def _name(caller: Caller) -> tuple[str, str]:
    """What it is called over REST and over gRPC."""
    answer = caller.grpc(tokens_pb2_grpc.TokenServiceStub, "GetCaller", tokens_pb2.GetCallerRequest())
    return caller.rest("GET", "/api/v1/caller")[1]["principal"], answer.principal


@pytest.mark.row("S1.11")
def test_static_keys_are_what_they_say(configured: Stack) -> None:
    trainer, predictor, bare, filed = (Caller(configured, key) for key in (TRAIN, PREDICT, BARE, FILED))
    for caller in (trainer, predictor, bare, filed):
        assert _lists_models(caller) == (200, "OK")
        assert _creates_keys(caller) == 403
    assert _name(trainer) == ("static:trainer",) * 2
    assert _name(filed)[0].startswith("static:unnamed-")
    upload = "/api/v1/managers/default/models/static/versions/v1/files/x"
    status, problem = predictor.rest("PUT", upload, {})
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    assert predictor.rest("GET", "/api/v1/secrets/prod/db")[0] == 403
    assert bare.rest("GET", "/api/v1/secrets/prod/db")[0] == 403
    for wrong in (TRAIN[:-1], f"trainer:train:{TRAIN}", f"{TRAIN},{BARE}", TOKEN):
        assert _lists_models(Caller(configured, wrong)) == (401, "UNAUTHENTICATED")


@pytest.mark.row("S1.11")
def test_a_key_that_left_the_file_fails_within_seconds(configured: Stack, key_file: Path) -> None:
    leaving, coming = Caller(configured, "a-key-that-will-leave"), Caller(configured, "a-key-that-will-come")
    key_file.write_text(f"{FILED}\nleaving:read_only:{leaving.credential}\n")
    _wait(leaving, (200, "OK"))
    _, token = leaving.rest("POST", "/api/v1/tokens", {})
    bearer = Caller(configured, f"Bearer {token['access_token']}", "Authorization")
    assert _lists_models(bearer) == (200, "OK")
    key_file.write_text(f"{FILED}\ncoming:read_only:{coming.credential}\n")
    _wait(coming, (200, "OK"))
    assert _lists_models(leaving) == (401, "UNAUTHENTICATED")
    _wait(bearer, (401, "UNAUTHENTICATED"))


@pytest.mark.row("S3.1")
def test_the_fixed_token_is_a_bearer_token(configured: Stack) -> None:
    caller = Caller(configured, f"Bearer {TOKEN}", "Authorization")
    assert _lists_models(caller) == (200, "OK")
    assert _name(caller) == ("token:fixed",) * 2
    assert _creates_keys(caller) == 403
    assert _lists_models(Caller(configured, f"Bearer {TOKEN}x", "Authorization")) == (401, "UNAUTHENTICATED")
    assert _lists_models(Caller(configured)) == (401, "UNAUTHENTICATED")


def test_values_are_in_no_log_and_in_no_file_and_aliases_are_told(configured: Stack) -> None:
    files = [file for file in configured.data_dir.rglob("*") if file.is_file()]
    stored = b"".join(file.read_bytes() for file in files)
    for value in (TRAIN, PREDICT, BARE, FILED, TOKEN):
        assert value.encode() not in stored
    logs = b"".join(file.read_bytes() for file in files if file.suffix == ".log").decode()
    for alias in ("CHAPKIT_API_KEYS", "AUTH_TOKEN"):
        assert sum(f'"used": "{alias}"' in line for line in logs.splitlines()) == 1


@pytest.mark.row("S3.1")
def test_open_mode_is_for_who_has_no_credential_and_is_warned_of(tmp_path: Path) -> None:
    with RunningStack(tmp_path / "data", STRONGROOM_AUTH_MODE="open", STRONGROOM_RATE_LIMIT="off") as stack:
        nobody = Caller(stack)
        assert _lists_models(nobody) == (200, "OK")
        assert _name(nobody) == ("anonymous",) * 2
        assert _creates_keys(nobody) == 403
        assert nobody.rest("GET", "/api/v1/secrets/prod/db")[0] == 403
        assert _lists_models(Caller(stack, "nonsense")) == (401, "UNAUTHENTICATED")
        assert _lists_models(Caller(stack, "Bearer nonsense", "Authorization")) == (401, "UNAUTHENTICATED")
        assert _creates_keys(administrator(stack)) == 201
        log = (stack.data_dir / "logs" / "auth.log").read_text()
    assert sum('"event": "auth.open_mode"' in line and '"level": "warning"' in line for line in log.splitlines()) == 1


def _wait(caller: Caller, answer: tuple[int, str]) -> None:
    deadline = time.monotonic() + 60
    while _lists_models(caller) != answer:
        assert time.monotonic() < deadline
        time.sleep(0.2)
