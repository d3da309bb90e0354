"""Sessions of the client: renewed before they end, once, whoever asks; kept in the profile for all commands."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom import profiles
from strongroom.errors import StrongroomError, Unauthenticated, Unavailable
from strongroom.profiles import KeptSession, Profile
from strongroom.session import MemoryStore, Session, Tokens

NOW = 1_700_000_000.0
URL = "http://room:1"


def tokens(number: int, now: float = NOW, principal: str = "user:ada") -> Tokens:
    return Tokens.issued(f"access-{number}", f"refresh-{number}", 600, 86400, principal, now)


class Exchange:
    """A session service that lets each refresh token work once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.shown: list[str] = []
        self.failure: StrongroomError | None = None

    def __call__(self, refresh_token: str) -> Tokens:
        if self.failure is not None:
            raise self.failure
        assert refresh_token not in self.shown, "shown twice: the session would end"
        self.shown.append(refresh_token)
        time.sleep(0.02)
        return tokens(len(self.shown) + 1, self.clock())


class Signed:
    """Somebody signed in a moment ago, and a clock."""

    def __init__(self) -> None:
        self.now = NOW
        self.store = MemoryStore()
        self.store.save(tokens(1))
        self.exchange = Exchange(self.clock)
        self.session = Session(self.store, self.exchange, clock=self.clock)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def signed() -> Signed:
    return Signed()


def test_a_token_is_used_until_most_of_its_life_is_over(signed: Signed) -> None:
    signed.now += 479
    assert signed.session.access_token() == "access-1"
    signed.now += 1
    assert signed.session.access_token() == "access-2"
    assert signed.exchange.shown == ["refresh-1"]
    assert signed.store.load() == tokens(2, signed.now)


def test_of_many_threads_one_renews(signed: Signed) -> None:
    signed.now += 500
    begin = threading.Barrier(16)
    got: list[str] = []

    def call() -> None:
        begin.wait()
        got.append(signed.session.access_token())

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["access-2"] * 16
    assert signed.exchange.shown == ["refresh-1"]


def test_a_server_that_is_away_is_no_reason_to_stop_while_the_token_is_good(signed: Signed) -> None:
    signed.exchange.failure = Unavailable("away")
    signed.now += 590
    assert signed.session.access_token() == "access-1"
    signed.now += 10
    with pytest.raises(Unavailable):
        signed.session.access_token()
    signed.exchange.failure = None
    assert signed.session.access_token() == "access-2"


def test_a_session_that_was_ended_says_so(signed: Signed) -> None:
    signed.exchange.failure = Unauthenticated("Used.", code="UNAUTHENTICATED", reason="REFRESH_TOKEN_REUSED")
    signed.now += 500
    with pytest.raises(Unauthenticated, match="sign in again") as caught:
        signed.session.access_token()
    assert caught.value.reason == "REFRESH_TOKEN_REUSED"


def test_a_session_that_slept_too_long_is_not_shown_to_the_server(signed: Signed) -> None:
    signed.now += 86400
    with pytest.raises(Unauthenticated):
        signed.session.access_token()
    assert signed.exchange.shown == []


def test_one_who_signed_in_meanwhile_is_not_spoken_for(signed: Signed) -> None:
    assert signed.session.access_token() == "access-1"
    signed.store.save(tokens(7, signed.now + 500, principal="user:eve"))
    signed.now += 500
    with pytest.raises(Unauthenticated, match="Somebody else"):
        signed.session.access_token()


def test_tokens_are_in_no_repr(signed: Signed) -> None:
    for shown in (repr(tokens(1)), repr(Profile(URL, session=tokens(1))), repr(signed.session), repr(signed.store)):
        assert "access-1" not in shown
        assert "refresh-1" not in shown


def _renew(folder: str, begin: float) -> None:
    """In a process of its own: a command that finds the token old. Writes what it showed to whom."""
    shown = Path(folder) / "shown"

    def exchange(refresh_token: str) -> Tokens:
        with shown.open("a") as file:
            file.write(f"{refresh_token}\n")
        time.sleep(0.2)
        return tokens(2, time.time())

    time.sleep(max(0, begin - time.time()))
    assert Session(KeptSession(URL), exchange).access_token() == "access-2"


@pytest.mark.usefixtures("clean_environment")
def test_of_several_commands_at_once_one_renews(tmp_path: Path) -> None:
    old = tokens(1, time.time())
    profiles.save(Profile(URL, session=replace(old, renew_at=time.time() - 1)))
    spawn = multiprocessing.get_context("fork")
    begin = time.time() + 0.5
    commands = [spawn.Process(target=_renew, args=(str(tmp_path), begin)) for _ in range(4)]
    for command in commands:
        command.start()
    for command in commands:
        command.join(20)
    assert [command.exitcode for command in commands] == [0] * 4
    assert (tmp_path / "shown").read_text() == "refresh-1\n"
    kept = profiles.current().session
    assert kept is not None
    assert kept.refresh_token == "refresh-2"


@pytest.mark.usefixtures("clean_environment")
def test_the_session_is_told_to_its_own_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    profiles.save(Profile(URL, session=tokens(1)))
    assert profiles.current().session == tokens(1)
    monkeypatch.setenv("STRONGROOM_URL", "http://elsewhere:1")
    assert profiles.current().session is None
    assert KeptSession("http://elsewhere:1").load() is None


@pytest.mark.usefixtures("clean_environment")
def test_a_key_in_the_environment_wins_over_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    profiles.save(Profile(URL, session=tokens(1)))
    monkeypatch.setenv("STRONGROOM_API_KEY", "sr_given")
    assert profiles.current() == Profile(URL, "sr_given")
    monkeypatch.delenv("STRONGROOM_API_KEY")
    monkeypatch.setenv("STRONGROOM_TOKEN", "jwt")
    assert profiles.current() == Profile(URL, token="jwt")


@pytest.mark.usefixtures("clean_environment")
def test_forgetting_leaves_the_address() -> None:
    profiles.save(Profile(URL, session=tokens(1)))
    assert profiles.forget().session == tokens(1)
    assert profiles.current() == Profile(URL)
    assert "refresh-1" not in profiles.path().read_text()
