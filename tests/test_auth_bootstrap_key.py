"""The administrator's key that the environment gives."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.auth import bootstrap, bootstrap_key, key_format
from strongroom.auth.v1 import api_keys_pb2 as pb
from tests.auth_installation import Auth, Installation, auth_settings, installation

ONE, OTHER = "first-administrator-key", "other-administrator-key"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


def _accepted(auth: Auth, key: str) -> bool:
    return auth.check_key(key).HasField("ok_response")


def _keys(auth: Auth, key: str) -> list[pb.ApiKey]:
    return list(auth.call(key, "ApiKeyService", "ListApiKeys", pb.ListApiKeysRequest()).api_keys)


@pytest.mark.row("S2.5")
def test_a_changed_bootstrap_key_replaces_the_one_before_at_once(installed: Installation) -> None:
    with installed.auth(database="changed", bootstrap_key=ONE) as running:
        made = running.create(ONE, permission_set="read_only")
        with installed.auth(database="changed", bootstrap_key=OTHER):
            assert not _accepted(running, ONE)
            assert _accepted(running, OTHER)
            assert _accepted(running, made.key)
        states = [(key.name, key.is_active) for key in _keys(running, OTHER) if key.name == "administrator"]
        assert states == [("administrator", True), ("administrator", False)]


def test_a_restart_with_the_same_key_or_none_changes_nothing(installed: Installation) -> None:
    for value in (ONE, ONE, ""):
        with installed.auth(database="same", bootstrap_key=value) as auth:
            assert len(_keys(auth, ONE)) == 1
    with installed.auth(database="none", bootstrap_key="") as auth:
        assert not _accepted(auth, ONE)


def test_a_revoked_bootstrap_key_does_not_come_back_with_a_restart(installed: Installation) -> None:
    with installed.auth(database="revoked", bootstrap_key=ONE) as auth:
        second = auth.create(ONE, permission_set="full_access")
        [administrator] = [key for key in _keys(auth, ONE) if key.name == "administrator"]
        auth.call(second.key, "ApiKeyService", "RevokeApiKey", pb.RevokeApiKeyRequest(id=administrator.id))
    with capture_logs() as logs, installed.auth(database="revoked", bootstrap_key=ONE) as auth:
        assert not _accepted(auth, ONE)
        assert _accepted(auth, second.key)
    [event] = [entry for entry in logs if entry["event"] == "auth.bootstrap_key_refused"]
    assert event["cause"] == "revoked"
    assert ONE not in repr(logs)


def test_a_key_of_another_format_shows_nothing_of_itself(installed: Installation) -> None:
    with capture_logs() as logs, installed.auth(database="foreign", bootstrap_key=ONE) as auth:
        [administrator] = _keys(auth, ONE)
        assert len(administrator.key_prefix) == 8
        assert administrator.key_prefix not in ONE
        assert ONE.encode() not in auth.stored_bytes()
    assert ONE not in repr(logs)


def test_a_key_of_our_format_keeps_its_prefix(installed: Installation) -> None:
    key = key_format.generate()
    with installed.auth(database="ours", bootstrap_key=key.text) as auth:
        [administrator] = _keys(auth, key.text)
        assert administrator.key_prefix == key.prefix


def test_the_key_may_stand_in_a_file_of_its_owner(installed: Installation) -> None:
    file = installed.folder / "admin.key"
    file.write_text(f"{ONE}\n")
    file.chmod(0o600)
    with installed.auth(database="file", bootstrap_key="", bootstrap_api_key_file=file) as auth:
        assert _accepted(auth, ONE)
    with pytest.raises(ValueError, match="not both"):
        bootstrap.build(auth_settings(installed.folder, bootstrap_api_key=ONE, bootstrap_api_key_file=file))


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    file.write_text(ONE)
    file.chmod(0o640)
    with pytest.raises(PermissionError, match="chmod 600"):
        bootstrap_key.read_file(file)


@pytest.mark.parametrize(
    "value",
    [
        "dev_key",
        "fifteen-letters",
        "change-this-in-production",
        "CHANGE-THIS-IN-PRODUCTION!",
        "k" * 513,
        "schlüssel-mit-umlaut",
        "a key with a\nline end",
        " a key with blanks around it ",
    ],
)
def test_known_short_and_unsendable_values_are_refused_without_being_repeated(value: str) -> None:
    with pytest.raises(ValueError, match="bootstrap API key") as caught:
        bootstrap_key.check(value)
    assert value not in str(caught.value)


def test_the_settings_do_not_show_the_key(tmp_path: Path) -> None:
    assert ONE not in repr(auth_settings(tmp_path, bootstrap_api_key=ONE))
