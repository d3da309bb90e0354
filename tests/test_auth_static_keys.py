"""Credentials that the settings give: static keys, the fixed token, and open mode."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from services.auth import bootstrap, chosen_secrets, key_format
from services.auth.permission_sets import PERMISSION_SETS, UNNAMED
from services.auth.settings import AuthSettings
from services.auth.static_keys import KeyFile, parse
from strongroom.auth.v1 import tokens_pb2 as pb
from tests.auth_installation import BOOTSTRAP_KEY, LIST_MODELS, Auth, Installation, auth_settings, installation

ONE, OTHER, BARE = "trainers-first-key-1", "trainers-second-key", "nobody-in-particular"
TOKEN = "a-fixed-bearer-token"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys.txt"
    file.touch(mode=0o600)
    return file


def _accepted(auth: Auth, key: str) -> bool:
    return auth.check_key(key).HasField("ok_response")


def _caller(auth: Auth, key: str) -> pb.GetCallerResponse:
    answer = auth.call(key, "TokenService", "GetCaller", pb.GetCallerRequest())
    assert isinstance(answer, pb.GetCallerResponse)
    return answer


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.row("S1.11")
def test_keys_of_the_environment_are_what_they_say(installed: Installation) -> None:
    ours = key_format.generate()
    given_keys = f"trainer:train:{ONE}, {BARE},\nreader:read_only:{ours.text}"
    with capture_logs() as logs, installed.auth(database="static", api_keys=given_keys) as auth:
        trainer, nobody, reader = (_caller(auth, key) for key in (ONE, BARE, ours.text))
        assert (trainer.principal, list(trainer.grants[0].permissions)) == (
            "static:trainer",
            list(PERMISSION_SETS["train"].permissions),
        )
        assert nobody.principal == f"static:unnamed-{nobody.key_prefix}"
        assert tuple(nobody.grants[0].permissions) == UNNAMED.permissions
        assert (reader.principal, reader.key_prefix) == ("static:reader", ours.prefix)
        assert nobody.key_prefix not in BARE
        assert not _accepted(auth, ONE[:-1])
        for value in (ONE, BARE, ours.text):
            assert value.encode() not in auth.stored_bytes()
            assert value not in repr(logs)


@pytest.mark.row("S1.11")
def test_a_file_of_keys_is_read_again_when_it_changes(installed: Installation, key_file: Path) -> None:
    key_file.write_text(f"# the trainers\n\n trainer:train:{ONE}\r\n#{OTHER}\n")
    with installed.auth(database="file", api_keys_file=key_file, api_keys=BARE) as auth:
        assert [_accepted(auth, key) for key in (ONE, OTHER, BARE)] == [True, False, True]
        token = auth.call(ONE, "TokenService", "CreateToken", pb.CreateTokenRequest()).access_token
        key_file.write_text(f"trainer:train:{OTHER}\n")
        _eventually(lambda: _accepted(auth, OTHER))
        assert not _accepted(auth, ONE)
        assert _accepted(auth, BARE)
        # What was made of the old key ends with it, though the new one has its name.
        assert not auth.accepts_token(token)
        with capture_logs() as logs:
            key_file.write_text(f"trainer:train:{ONE}\nsecond:nonsense:{OTHER}\n")
            _eventually(lambda: _accepted(auth, OTHER) and any("not_read" in entry["event"] for entry in logs))
        assert ONE not in repr(logs)
        assert "entry 2 (second)" in repr(logs)
        assert not _accepted(auth, ONE)


def test_a_removed_key_is_reported_to_the_services(installed: Installation, key_file: Path) -> None:
    key_file.write_text(f"trainer:train:{ONE}\nstays:train:{OTHER}")
    with installed.auth(database="removed", api_keys_file=key_file) as auth:
        gone, stays = auth.credential(ONE), auth.credential(OTHER)
        assert not {gone, stays} & set(auth.revocations(installed))
        key_file.write_text(f"stays:train:{OTHER}\n")
        _eventually(lambda: gone in auth.revocations(installed))
        assert stays not in auth.revocations(installed)


def test_a_file_is_not_taken_while_it_is_being_written(key_file: Path) -> None:
    key_file.write_text(ONE)
    file = KeyFile(key_file)
    file.read()
    assert not file.changed()
    key_file.write_text("")
    assert not file.changed()
    key_file.write_text(f"{ONE}\n{OTHER}")
    assert not file.changed()
    assert file.changed()
    assert [entry.value for entry in file.read()] == [ONE, OTHER]
    assert not file.changed()


def test_a_file_that_others_may_read_is_refused_unless_its_mount_is_read_only(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file.write_text(ONE)
    key_file.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600") as caught:
        KeyFile(key_file).read()
    assert ONE not in str(caught.value)
    mounted = os.statvfs_result((*os.statvfs(key_file)[:8], os.ST_RDONLY, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: mounted)
    [entry] = KeyFile(key_file).read()
    assert entry.value == ONE


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (f"{ONE}\n{OTHER},{BARE}", "has a line with a comma"),
        (f"# {'x' * (1 << 20)}", "is larger than"),
        (f"{ONE}\n{ONE}", "entry 2: the same key as .*entry 1"),
    ],
)
def test_a_senseless_file_is_refused(key_file: Path, content: str, complaint: str) -> None:
    key_file.write_text(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        KeyFile(key_file).read()
    assert ONE not in str(caught.value)


def test_a_pipe_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", mode=0o600)
    with pytest.raises(ValueError, match="is not a file"):
        KeyFile(tmp_path / "pipe").read()
    with pytest.raises(FileNotFoundError):
        KeyFile(tmp_path / "nothing").read()


def test_an_empty_setting_is_none(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEYS", "API_KEYS_FILE", "AUTH_TOKEN", "BOOTSTRAP_API_KEY_FILE"):
        monkeypatch.setenv(f"STRONGROOM_{name}", "")
        monkeypatch.setenv(name, "")
    settings = AuthSettings()
    assert (settings.api_keys_file, settings.bootstrap_api_key_file, settings.aliases_used) == (None, None, ())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fifteen-letters", "entry 1 needs 16 to 512"),
        (f"{ONE},dev_key", "entry 2 needs 16"),
        (f"trainer:train:{ONE},reader:read_only:CHANGE-THIS-IN-PRODUCTION", r"entry 2 \(reader\) is a well-known"),
        (f"trainer:{ONE}", "entry 1: write name:permission_set:key"),
        (f"trainer:fly:{ONE}", r"entry 1 \(trainer\): there is no such permission set"),
        (f"tra iner:train:{ONE}", "entry 1: a name is"),
        (f"a:train:{ONE},a:predict:{OTHER}", r"entry 2 \(a\): the name is taken"),
        (f"{ONE},b:train:{ONE}", r"entry 2 \(b\): the same key as STRONGROOM_API_KEYS, entry 1"),
        (f"{ONE} # a comment", "entry 1: a key has no blanks"),
        ("schlüssel-mit-umlauten", "entry 1 must be printable"),
        ("aws-sm://NAME MORE", "aws-sm://NAME"),
    ],
)
def test_senseless_entries_are_refused_at_start_without_being_repeated(
    installed: Installation, text: str, complaint: str
) -> None:
    settings = auth_settings(installed.folder, api_keys=text, database_url=f"sqlite:///{installed.folder}/x.db")
    with pytest.raises(ValueError, match=complaint) as caught:
        bootstrap.build(settings)
    for value in (ONE, OTHER, "fifteen", "CHANGE", "schl"):
        assert value not in str(caught.value)
    assert text not in repr(settings)


@given(st.text(max_size=200))
def test_any_text_is_entries_or_a_complaint_that_does_not_repeat_it(text: str) -> None:
    try:
        entries = parse(text, "setting")
    except ValueError as error:
        long = [part for part in text.replace(",", ":").replace("\n", ":").split(":") if len(part) > 64]
        assert not any(part in str(error) for part in long)  # noqa: PT017
    else:
        for entry in entries:
            assert chosen_secrets.check(entry.value, "") == entry.value
            assert entry.value not in repr(entry)


def test_an_example_of_the_guide_is_accepted_with_a_warning() -> None:
    with capture_logs() as logs:
        parse("sk_ml_train_abc123,sk_ml_predict_xyz789", "CHAPKIT_API_KEYS")
    assert [entry["event"] for entry in logs] == ["auth.example_key"] * 2
    assert "sk_ml" not in repr(logs)


@pytest.mark.row("S3.1")
def test_the_fixed_token_uses_the_product_and_administers_nothing(installed: Installation) -> None:
    with capture_logs() as logs, installed.auth(database="token", auth_token=TOKEN) as auth:
        for scheme in ("Bearer", "bearer"):
            answer = auth.check(LIST_MODELS, {"authorization": f"{scheme} {TOKEN}"})
            assert answer.HasField("ok_response")
        caller = auth.call_with(
            {"authorization": f"Bearer {TOKEN}"}, "TokenService", "GetCaller", pb.GetCallerRequest()
        )
        assert caller.principal == "token:fixed"
        assert tuple(caller.grants[0].permissions) == UNNAMED.permissions
        for headers in (
            {"authorization": f"Bearer {TOKEN}x"},
            {"authorization": f"Bearer {TOKEN} "},
            {"authorization": f"Bearer  {TOKEN}"},
            {"authorization": f"Basic {TOKEN}"},
            {"authorization": TOKEN},
            {"authorization": "Bearer "},
            {"authorization": f"Bearer {TOKEN},{TOKEN}"},
            {"x-api-key": TOKEN},
            {"x-api-key": BOOTSTRAP_KEY, "authorization": f"Bearer {TOKEN}"},
        ):
            assert auth.check(LIST_MODELS, headers).denied_response.status.code == 401
        assert TOKEN.encode() not in auth.stored_bytes()
    assert TOKEN not in repr(logs)
    with installed.auth(database="token") as auth:
        assert auth.check(LIST_MODELS, {"authorization": f"Bearer {TOKEN}"}).denied_response.status.code == 401


@pytest.mark.row("S3.1")
@pytest.mark.parametrize("value", ["dev-token-12345", "short", "your-secure-token-here", "with a blank in the middle"])
def test_a_known_or_short_token_is_refused_at_start(installed: Installation, value: str) -> None:
    settings = auth_settings(installed.folder, auth_token=value, database_url=f"sqlite:///{installed.folder}/x.db")
    with pytest.raises(ValueError, match="STRONGROOM_AUTH_TOKEN") as caught:
        bootstrap.build(settings)
    assert value not in str(caught.value)


@pytest.mark.row("S3.1")
def test_open_mode_lets_in_whoever_has_no_credential_and_nobody_with_a_wrong_one(installed: Installation) -> None:
    with capture_logs() as logs, installed.auth(database="open", auth_mode="open") as auth:
        anonymous = auth.call_with({}, "TokenService", "GetCaller", pb.GetCallerRequest())
        assert anonymous.principal == "anonymous"
        assert tuple(anonymous.grants[0].permissions) == UNNAMED.permissions
        for headers in ({"x-api-key": "nonsense"}, {"authorization": "Bearer nonsense"}, {"x-api-key": ""}):
            assert auth.check(LIST_MODELS, headers).denied_response.status.code == 401
        assert _caller(auth, BOOTSTRAP_KEY).name == "administrator"
        stale = auth.call_with({}, "TokenService", "CreateToken", pb.CreateTokenRequest()).access_token
    assert [entry["log_level"] for entry in logs if entry["event"] == "auth.open_mode"] == ["warning"]
    with installed.auth(database="open") as auth:
        assert auth.check().denied_response.status.code == 401
        assert not auth.accepts_token(stale)


@pytest.mark.row("S3.1")
def test_open_mode_needs_its_name(tmp_path: Path) -> None:
    assert auth_settings(tmp_path).auth_mode == "required"
    for value in ("", "off", "true", "OPEN"):
        with pytest.raises(ValueError, match="auth_mode"):
            auth_settings(tmp_path, auth_mode=value)


def test_names_of_other_products_count_where_ours_are_not_set(
    installed: Installation, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for alias in ("API_KEYS", "AUTH_TOKEN", "CHAPKIT_API_KEYS"):
        monkeypatch.delenv(alias, raising=False)
    monkeypatch.setenv("CHAPKIT_API_KEYS", ONE)
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    with capture_logs() as logs, installed.auth(database="alias") as auth:
        assert _accepted(auth, ONE)
        assert auth.check(LIST_MODELS, {"authorization": f"Bearer {TOKEN}"}).HasField("ok_response")
    said = [(entry["used"], entry["instead"]) for entry in logs if entry["event"] == "settings.alias"]
    assert said == [("CHAPKIT_API_KEYS", "STRONGROOM_API_KEYS"), ("AUTH_TOKEN", "STRONGROOM_AUTH_TOKEN")]
    assert ONE not in repr(logs)
    monkeypatch.setenv("STRONGROOM_API_KEYS", OTHER)
    settings = AuthSettings()
    assert settings.api_keys.get_secret_value() == OTHER
    assert settings.aliases_used == ("AUTH_TOKEN",)
    assert OTHER not in repr(settings)
    assert TOKEN not in repr(settings)


def test_a_value_of_the_environment_may_name_a_secret(installed: Installation) -> None:
    cases: list[dict[str, Any]] = [{"api_keys": "aws-sm://"}, {"auth_token": "aws-ssm://"}]
    for fields in [*cases, {"api_keys": "ci:train:aws-sm://"}]:
        settings = auth_settings(installed.folder, database_url=f"sqlite:///{installed.folder}/x.db", **fields)
        with pytest.raises(ValueError, match="A secret is named as"):
            bootstrap.build(settings)
