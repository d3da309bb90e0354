"""The profile: private, overridden by the environment, and its key told to its own address only."""

import stat
from pathlib import Path

import pytest

from strongroom import profiles
from strongroom.errors import LocalFileError
from strongroom.profiles import Profile

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_without_anything_it_is_the_default_address() -> None:
    assert profiles.current() == Profile("http://127.0.0.1:8080", "")


def test_what_is_kept_is_private_and_found_again() -> None:
    kept = profiles.save(Profile("http://room:1", "sr_key"))
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert profiles.current() == Profile("http://room:1", "sr_key")
    profiles.save(Profile("http://room:2", "sr_other"))
    assert profiles.current() == Profile("http://room:2", "sr_other")
    assert {file.name for file in kept.parent.iterdir()} == {kept.name, "profile.lock"}


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    profiles.save(Profile("http://room:1", "sr_kept"))
    monkeypatch.setenv("STRONGROOM_API_KEY", "sr_given")
    assert profiles.current() == Profile("http://room:1", "sr_given")


def test_another_address_is_not_told_the_kept_key(monkeypatch: pytest.MonkeyPatch) -> None:
    profiles.save(Profile("http://room:1", "sr_kept"))
    monkeypatch.setenv("STRONGROOM_URL", "http://elsewhere:1")
    assert profiles.current() == Profile("http://elsewhere:1", "")
    monkeypatch.setenv("STRONGROOM_URL", "http://room:1/")
    assert profiles.current().api_key == "sr_kept"


def test_a_profile_that_others_may_read_is_refused() -> None:
    profiles.save(Profile("http://room:1", "sr_key")).chmod(0o640)
    with pytest.raises(LocalFileError, match="chmod 600") as caught:
        profiles.current()
    assert caught.value.reason == "PROFILE_NOT_PRIVATE"


def test_who_gives_both_needs_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    profiles.save(Profile("http://room:1", "sr_kept")).chmod(0o640)
    monkeypatch.setenv("STRONGROOM_URL", "http://room:2")
    monkeypatch.setenv("STRONGROOM_API_KEY", "sr_given")
    assert profiles.current() == Profile("http://room:2", "sr_given")


def test_a_profile_that_cannot_be_kept_says_so(clean_environment: Path) -> None:
    (clean_environment / "config").write_text("a file where the folder would be")
    with pytest.raises(LocalFileError, match=r"profile\.json can't be written") as caught:
        profiles.save(Profile("http://room:1", "sr_key"))
    assert caught.value.reason == "PROFILE_UNWRITABLE"
    assert "sr_key" not in caught.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"other": 1}'])
def test_a_broken_profile_says_what_to_do(text: str) -> None:
    profiles.save(Profile()).write_text(text)
    with pytest.raises(LocalFileError, match="strongroom login"):
        profiles.current()


def test_the_key_is_not_in_the_repr(tmp_path: Path) -> None:
    assert "sr_key" not in repr(Profile("http://room:1", "sr_key"))
