"""Passwords: what they must be, how they are hashed, and how much of that goes on at once."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from prometheus_client import REGISTRY
from pydantic import ValidationError

from services.auth import first_administrator, password_rules
from services.auth.envelope import Envelope
from services.auth.password_hashing import PasswordHashing, SignInBusy
from services.auth.password_rules import PasswordWeak
from services.auth.pepper import Pepper
from services.auth.settings import AuthSettings
from services.shared.database import Database
from tests.auth_installation import TestClock

MIGRATIONS = Path(first_administrator.__file__).parent / "migrations"
EMAIL = "ada.lovelace@example.com"
GOOD = "lantern orbit velvet"


@pytest.fixture(scope="module")
def pepper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pepper]:
    folder = tmp_path_factory.mktemp("pepper")
    database = Database.open(f"sqlite:///{folder}/pepper.db", service="auth", migrations=MIGRATIONS)
    made = Pepper(database, Envelope(lambda plain, _: plain, lambda cipher, _: cipher), TestClock())
    made.load()
    yield made
    database.close()


def hashing_of(pepper: Pepper, memory: int = 32, *, threads: int = 2, waiting: int = 16) -> PasswordHashing:
    hasher = PasswordHasher(time_cost=1, memory_cost=memory, parallelism=1)
    return PasswordHashing(pepper, hasher, threads=threads, waiting=waiting)


@pytest.fixture
def hashing(pepper: Pepper) -> Iterator[PasswordHashing]:
    made = hashing_of(pepper)
    yield made
    made.close()


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "x7gQ!mv2ndLp",
        "пароль моей кошки",
        "384756102938",
        "  blanks count  ",
        "password is my dog's name",
        "a" * 11 + "é" * 1013,
    ],
)
def test_long_passwords_of_any_kind_are_fine(password: str) -> None:
    password_rules.check(password, EMAIL)


@pytest.mark.parametrize(
    "password",
    [
        *("short", "elevenchars", "x" * 1025),
        *(EMAIL, EMAIL.upper(), "ada.lovelace"),
        *("password1234", "Passw0rd!2024", "P@$$w0rd12345", "change-this-in-production", "letmein letmein"),
        *(
            "123456789012",
            "987654321098",
            "qwertyuiop[]asdf".replace("[]", ""),
            "1q2w3e4r5t6y",
            "aaaaaaaaaaaa",
            "abcabcabcabc",
        ),
        "ｐａｓｓｗｏｒｄ１２３４",  # noqa: RUF001 - the same word in full width
    ],
)
def test_what_is_tried_first_is_no_password(password: str) -> None:
    with pytest.raises(PasswordWeak) as caught:
        password_rules.check(password, EMAIL)
    assert password not in caught.value.message


def test_the_length_counts_what_is_left_after_normalisation() -> None:
    """One ligature stands for eighteen characters, so a thousand of them are too many."""
    with pytest.raises(PasswordWeak, match="12 to 1024 characters"):
        password_rules.check("\ufdfa" * 1000, EMAIL)


def test_made_up_passwords_are_good_and_never_the_same() -> None:
    made = {password_rules.make_up() for _ in range(200)}
    assert len(made) == 200
    for password in made:
        password_rules.check(password, EMAIL)


def test_a_password_typed_on_another_keyboard_is_the_same(hashing: PasswordHashing) -> None:
    composed, decomposed = "caf\u00e9 au lait, bien s\u00fbr", "cafe\u0301 au lait, bien su\u0302r"
    stored = hashing.hash(composed, known=True)
    assert hashing.verify(stored, decomposed, known=True)
    assert not hashing.verify(stored, "cafe au lait, bien sur", known=True)


def test_a_stolen_hash_cannot_be_tried_without_the_pepper(hashing: PasswordHashing) -> None:
    stored = hashing.hash(GOOD, known=True)
    assert stored.startswith("$argon2id$v=19$m=32,t=1,p=1$")
    with pytest.raises(Exception, match="does not match"):
        PasswordHasher().verify(stored, GOOD)


def test_nobodys_password_costs_as_much_as_somebodys(hashing: PasswordHashing) -> None:
    stored = hashing.hash(GOOD, known=True)
    before = _computations()
    assert not hashing.verify(stored, "another password", known=False)
    assert _computations() == before + 1
    assert not hashing.verify(None, "another password", known=False)
    assert _computations() == before + 2


def test_hashes_with_other_parameters_are_outdated(pepper: Pepper, hashing: PasswordHashing) -> None:
    stored = hashing.hash(GOOD, known=True)
    dearer = hashing_of(pepper, memory=64)
    assert not hashing.outdated(stored)
    assert dearer.outdated(stored)
    assert dearer.verify(stored, GOOD, known=True)
    dearer.close()


def test_a_flood_of_strangers_is_refused_and_leaves_room_for_who_was_here_before(pepper: Pepper) -> None:
    """Half a gigabyte keeps the one thread busy while the others come."""
    slow = hashing_of(pepper, memory=1 << 19, threads=1, waiting=4)
    threads = [threading.Thread(target=slow.hash, args=(GOOD,), kwargs={"known": False}) for _ in range(3)]
    try:
        before = _computations()
        for thread in threads:
            thread.start()
        while _computations() < before + 3:
            time.sleep(0.001)
        with pytest.raises(SignInBusy) as caught:
            slow.hash(GOOD, known=False)
        assert caught.value.retry_after == 1
        assert slow.hash(GOOD, known=True)
    finally:
        for thread in threads:
            thread.join()
        slow.close()


def test_cheap_hashing_must_be_asked_for(tmp_path: Path, clean_environment: Path) -> None:
    for parameters in ({"password_memory_kib": 19_455}, {"password_passes": 1}):
        with pytest.raises(ValidationError, match="STRONGROOM_PASSWORD_MEMORY_KIB must be 19456 or more") as caught:
            AuthSettings(admin_password=GOOD, **parameters)
        assert GOOD not in str(caught.value)
        assert AuthSettings(data_dir=tmp_path, **parameters, password_cheap=True)
    made = AuthSettings(data_dir=tmp_path)
    assert (made.password_memory_kib, made.password_passes, made.password_lanes) == (65_536, 3, 4)


def test_the_first_administrators_password_is_no_example(tmp_path: Path) -> None:
    for password in ("changeme", "change-me-in-production", "your-secure-password"):
        with pytest.raises(ValueError, match="STRONGROOM_ADMIN_PASSWORD") as caught:
            first_administrator.read("admin@example.com", password, None)
        assert password not in str(caught.value)
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text(f"{GOOD}\n")
    made = first_administrator.read("Admin@EXAMPLE.com", "", file)
    assert made is not None
    assert (made.email, made.password) == ("Admin@example.com", GOOD)
    assert GOOD not in repr(made)
    file.chmod(0o640)
    with pytest.raises(PermissionError, match="chmod 600"):
        first_administrator.read("admin@example.com", "", file)


@pytest.mark.parametrize(("email", "password"), [("", GOOD), ("admin@example.com", ""), ("nobody", GOOD)])
def test_half_an_administrator_is_refused(email: str, password: str) -> None:
    with pytest.raises(ValueError, match="STRONGROOM_ADMIN_") as caught:
        first_administrator.read(email, password, None)
    assert GOOD not in str(caught.value)


def _computations() -> float:
    return REGISTRY.get_sample_value("strongroom_password_computations_total") or 0.0
