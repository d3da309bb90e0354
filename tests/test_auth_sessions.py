"""Sessions: tokens that come of a sign-in, refresh tokens that work once, and guessing that locks nobody out."""

import base64
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import grpc
import jwt
import pytest
from prometheus_client import REGISTRY

from services.auth import throttle
from services.shared.channels import service_channel
from services.shared.tokens import ServiceIdentity
from strongroom.auth.v1 import sessions_pb2 as pb
from strongroom.auth.v1 import sessions_pb2_grpc, tokens_pb2_grpc, users_pb2
from strongroom.auth.v1 import tokens_pb2 as tokens_pb
from tests.auth_installation import BOOTSTRAP_KEY, Auth, Installation, installation, reason_of
from tests.people import (
    CHEAP,
    PASSWORD,
    administer,
    ask,
    fresh_email,
    person,
    refresh,
    retry_seconds,
    sign_in,
    works,
)

NEW = "another lantern orbit"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture(scope="module")
def auth(installed: Installation) -> Iterator[Auth]:
    with installed.auth(**CHEAP) as running:
        yield running


@pytest.fixture
def later(installed: Installation) -> Iterator[Callable[[timedelta], None]]:
    """Moves the clock on, until the test is over."""

    def move(by: timedelta) -> None:
        installed.clock.ahead += by

    yield move
    installed.clock.ahead = timedelta()


def outcome(call: Callable[..., Any], *arguments: Any) -> str:
    """The reason that a call fails with, or OK."""
    try:
        call(*arguments)
    except grpc.RpcError as error:
        return reason_of(error)
    return "OK"


def sessions_of(auth: Auth, access_token: str) -> list[pb.Session]:
    return list(ask(auth, access_token, "SessionService", "ListSessions", pb.ListSessionsRequest()).sessions)


def change_password(auth: Auth, access_token: str, current: str, new: str) -> None:
    request = pb.ChangePasswordRequest(current_password=current, new_password=new)
    ask(auth, access_token, "SessionService", "ChangePassword", request)


@pytest.mark.row("S2.6")
def test_a_sign_in_gives_an_access_token_and_a_refresh_token(auth: Auth) -> None:
    made = person(auth, "analyst")
    answer = made.sign_in()
    claims = jwt.decode(answer.access_token, options={"verify_signature": False})
    [session] = sessions_of(auth, answer.access_token)
    assert jwt.get_unverified_header(answer.access_token)["typ"] == "at+jwt"
    assert (claims["sub"], claims["name"], claims["role"]) == (f"user:{made.id}", made.user.email, "analyst")
    assert claims["cred"] == f"session:{session.id}"
    assert claims["exp"] - claims["iat"] == answer.expires_in == 600
    assert (answer.token_type, answer.role, answer.principal) == ("Bearer", "analyst", f"user:{made.id}")
    assert answer.refresh_token.startswith("srr_")
    assert answer.refresh_expires_in == 7 * 86_400


def test_whether_the_address_or_the_password_is_wrong_does_not_show(auth: Auth) -> None:
    """Neither in the answer nor in the work, which is counted and not timed."""
    made, inactive = person(auth), person(auth)
    administer(auth, "UpdateUser", users_pb2.UpdateUserRequest(id=inactive.id, is_active=False))
    answers = set()
    for email, password in (
        (made.user.email, "the wrong password"),
        (fresh_email(), PASSWORD),
        (inactive.user.email, PASSWORD),
        ("not an address", PASSWORD),
    ):
        before = _computations()
        with pytest.raises(grpc.RpcError) as caught:
            sign_in(auth, email, password, "192.0.2.77")
        assert _computations() == before + 1
        answers.add((caught.value.code(), caught.value.details(), reason_of(caught.value)))
    assert answers == {(grpc.StatusCode.UNAUTHENTICATED, "E-mail address or password is wrong.", "SIGN_IN_FAILED")}


@pytest.mark.row("S2.6")
def test_refresh_rotates_and_a_replay_ends_the_session(auth: Auth) -> None:
    first = person(auth).sign_in()
    second = refresh(auth, first.refresh_token)
    assert second.refresh_token != first.refresh_token
    assert works(auth, second.access_token)
    assert outcome(refresh, auth, first.refresh_token) == "REFRESH_TOKEN_REUSED"
    assert not works(auth, first.access_token)
    assert not works(auth, second.access_token)
    assert outcome(refresh, auth, second.refresh_token) == "REFRESH_TOKEN_INVALID"


def test_a_replay_ends_one_session_and_no_other(auth: Auth) -> None:
    made = person(auth)
    stolen, other = made.sign_in(), made.sign_in()
    refresh(auth, stolen.refresh_token)
    assert outcome(refresh, auth, stolen.refresh_token) == "REFRESH_TOKEN_REUSED"
    assert works(auth, other.access_token)
    assert refresh(auth, other.refresh_token).access_token


@pytest.mark.parametrize(
    "damage", [lambda t: t[:-1], lambda t: t + "x", lambda t: t[::-1], lambda _: "srr_", lambda t: "\x00" + t]
)
def test_what_is_no_refresh_token_ends_nothing(auth: Auth, damage: Callable[[str], str]) -> None:
    tokens = person(auth).sign_in()
    assert outcome(refresh, auth, damage(tokens.refresh_token)) == "REFRESH_TOKEN_INVALID"
    assert outcome(refresh, auth, tokens.access_token[:500]) == "REFRESH_TOKEN_INVALID"
    assert refresh(auth, tokens.refresh_token).access_token


def test_a_session_ends_when_it_is_not_refreshed(auth: Auth, later: Callable[[timedelta], None]) -> None:
    tokens = person(auth).sign_in()
    later(timedelta(days=7, seconds=1))
    assert outcome(refresh, auth, tokens.refresh_token) == "REFRESH_TOKEN_INVALID"


def test_a_session_ends_however_often_it_is_refreshed(auth: Auth, later: Callable[[timedelta], None]) -> None:
    tokens: Any = person(auth).sign_in()
    for _ in range(4):
        later(timedelta(days=6))
        tokens = refresh(auth, tokens.refresh_token)
    later(timedelta(days=5, hours=23, minutes=55))
    tokens = refresh(auth, tokens.refresh_token)
    # The last tokens don't outlive the session.
    assert 0 < tokens.expires_in <= 300
    assert tokens.refresh_expires_in <= 300
    assert works(auth, tokens.access_token)
    later(timedelta(minutes=5))
    assert not works(auth, tokens.access_token)
    assert outcome(refresh, auth, tokens.refresh_token) == "REFRESH_TOKEN_INVALID"


def test_signing_out_ends_the_session(auth: Auth) -> None:
    made = person(auth)
    tokens, other = made.sign_in(), made.sign_in()
    for token in (tokens.refresh_token, tokens.refresh_token, "srr_unknown"):
        ask(auth, "", "SessionService", "SignOut", pb.SignOutRequest(refresh_token=token))
    assert not works(auth, tokens.access_token)
    assert outcome(refresh, auth, tokens.refresh_token) == "REFRESH_TOKEN_INVALID"
    assert works(auth, other.access_token)


def test_a_user_sees_and_ends_their_own_sessions_alone(auth: Auth) -> None:
    made, stranger = person(auth), person(auth).sign_in()
    one, two, three = (made.sign_in(f"192.0.2.{n}") for n in (11, 12, 13))
    listed = sessions_of(auth, two.access_token)
    assert [(session.address, session.is_current) for session in listed] == [
        ("192.0.2.13", False),
        ("192.0.2.12", True),
        ("192.0.2.11", False),
    ]

    def end(access_token: str) -> None:
        ask(auth, access_token, "SessionService", "EndSession", pb.EndSessionRequest(id=listed[2].id))

    assert outcome(end, stranger.access_token) == "SESSION_NOT_FOUND"
    assert works(auth, one.access_token)
    end(two.access_token)
    assert outcome(end, two.access_token) == "SESSION_NOT_FOUND"
    assert [works(auth, tokens.access_token) for tokens in (one, two, three)] == [False, True, True]
    answer = ask(auth, two.access_token, "SessionService", "EndSessions", pb.EndSessionsRequest())
    assert answer.ended_sessions == 2
    assert [works(auth, tokens.access_token) for tokens in (two, three, stranger)] == [False, False, True]


def test_a_changed_password_ends_the_other_sessions(auth: Auth) -> None:
    made = person(auth)
    mine, other = made.sign_in(), made.sign_in()
    assert outcome(change_password, auth, mine.access_token, "wrong", NEW) == "SIGN_IN_FAILED"
    assert outcome(change_password, auth, mine.access_token, PASSWORD, "short") == "PASSWORD_WEAK"
    assert outcome(change_password, auth, mine.access_token, PASSWORD, made.user.email) == "PASSWORD_WEAK"
    change_password(auth, mine.access_token, PASSWORD, NEW)
    assert works(auth, mine.access_token)
    assert not works(auth, other.access_token)
    assert outcome(made.sign_in) == "SIGN_IN_FAILED"
    assert made.sign_in(password=NEW).access_token


def test_a_stolen_access_token_cannot_try_passwords_for_long(auth: Auth) -> None:
    made = person(auth)
    stolen = made.sign_in()
    tried = [outcome(change_password, auth, stolen.access_token, f"guess {n}", NEW) for n in range(7)]
    assert tried == ["SIGN_IN_FAILED"] * 5 + ["SIGN_IN_THROTTLED"] * 2
    # The owner, in another session, is not concerned.
    change_password(auth, made.sign_in().access_token, PASSWORD, NEW)
    assert not works(auth, stolen.access_token)


def test_an_api_key_has_neither_password_nor_sessions(auth: Auth) -> None:
    metadata = auth.identity(BOOTSTRAP_KEY, "/strongroom.auth.v1.SessionService/ChangePassword")
    stub = sessions_pb2_grpc.SessionServiceStub(auth.channel)
    request = pb.ChangePasswordRequest(current_password=PASSWORD, new_password=NEW)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ChangePassword(request, metadata=metadata)
    assert (caught.value.code(), reason_of(caught.value)) == (grpc.StatusCode.PERMISSION_DENIED, "USER_REQUIRED")
    assert list(stub.ListSessions(pb.ListSessionsRequest(), metadata=metadata).sessions) == []
    assert stub.EndSessions(pb.EndSessionsRequest(), metadata=metadata).ended_sessions == 0


def test_an_access_token_makes_no_other(auth: Auth) -> None:
    tokens = person(auth).sign_in()
    made = outcome(ask, auth, tokens.access_token, "TokenService", "CreateToken", tokens_pb.CreateTokenRequest())
    assert made == "TOKEN_NOT_EXCHANGEABLE"


def test_services_are_told_which_sessions_ended(installed: Installation, auth: Auth) -> None:
    tokens = person(auth).sign_in()
    [session] = sessions_of(auth, tokens.access_token)
    refresh(auth, tokens.refresh_token)
    refresh_again = outcome(refresh, auth, tokens.refresh_token)
    identity = ServiceIdentity.load("models", installed.folder / "keys")
    with service_channel(auth.address, "auth", identity) as channel:
        stub = tokens_pb2_grpc.TokenServiceStub(channel)
        revoked = stub.ListRevocations(tokens_pb.ListRevocationsRequest()).credential_ids
    assert (refresh_again, f"session:{session.id}" in revoked) == ("REFRESH_TOKEN_REUSED", True)


def test_neither_password_nor_tokens_nor_what_was_typed_are_stored_or_logged(
    auth: Auth, capfd: pytest.CaptureFixture[str]
) -> None:
    made = person(auth)
    tokens = made.sign_in()
    typed = "my password in the wrong field"
    assert outcome(sign_in, auth, typed, "and here another") == "SIGN_IN_FAILED"
    seen = auth.stored_bytes().decode(errors="replace") + "".join(capfd.readouterr())
    for text in (PASSWORD, tokens.refresh_token, tokens.access_token, typed, "and here another"):
        assert text not in seen
    assert made.user.email in seen


# --- Guessing ---


def guess(auth: Auth, email: str, address: str, times: int) -> list[str]:
    return [outcome(sign_in, auth, email, f"guess number {n}", address) for n in range(times)]


@pytest.mark.row("S2.6")
def test_who_guesses_waits_longer_and_longer(auth: Auth, later: Callable[[timedelta], None]) -> None:
    made = person(auth)
    assert guess(auth, made.user.email, "198.51.100.1", 5) == ["SIGN_IN_FAILED"] * 5
    waits = []
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            made.sign_in("198.51.100.1")
        assert (caught.value.code(), reason_of(caught.value)) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "SIGN_IN_THROTTLED",
        )
        waits.append(retry_seconds(caught.value) or 0)
        later(timedelta(seconds=waits[-1]))
        assert guess(auth, made.user.email, "198.51.100.1", 1) == ["SIGN_IN_FAILED"]
    assert waits == [1, 2, 4]
    # Whoever waits as long as told and has the password gets in, and starts anew.
    later(timedelta(seconds=8))
    assert made.sign_in("198.51.100.1").access_token
    assert guess(auth, made.user.email, "198.51.100.1", 5) == ["SIGN_IN_FAILED"] * 5


def test_the_longest_pause_is_a_quarter_of_an_hour(auth: Auth) -> None:
    for limit in (throttle.PAIR, throttle.NETWORK, throttle.ACCOUNT):
        assert limit.pause(limit.free - 1) == timedelta()
        assert limit.pause(limit.free) == timedelta(seconds=1)
        assert limit.pause(10**9) == throttle.LONGEST_PAUSE == timedelta(minutes=15)


@pytest.mark.row("S2.6")
def test_guessing_from_many_addresses_does_not_lock_the_owner_out(
    auth: Auth, later: Callable[[timedelta], None]
) -> None:
    made = person(auth)
    tokens = made.sign_in("192.0.2.50")
    guesses = [guess(auth, made.user.email, f"198.51.100.{n}", 1)[0] for n in range(40, 70)]
    assert guesses[:20] == ["SIGN_IN_FAILED"] * 20
    assert set(guesses[21:]) == {"SIGN_IN_THROTTLED"}
    # The owner gets in from where they were before, whatever goes on, and sessions go on.
    assert made.sign_in("192.0.2.50").access_token
    assert refresh(auth, tokens.refresh_token).access_token
    # From elsewhere the owner waits as long as it says: nobody can tell them from the others.
    with pytest.raises(grpc.RpcError) as caught:
        made.sign_in("203.0.113.7")
    later(timedelta(seconds=retry_seconds(caught.value) or 0))
    assert made.sign_in("203.0.113.7").access_token
    assert guess(auth, made.user.email, "198.51.100.99", 2)[-1] == "SIGN_IN_THROTTLED"
    # Now that is a place they were before.
    assert made.sign_in("203.0.113.7").access_token


def test_trying_one_password_on_everybody_stops_the_address_and_not_who_was_there_before(auth: Auth) -> None:
    resident, newcomer = person(auth), person(auth)
    resident.sign_in("198.51.100.200")
    tried = [guess(auth, fresh_email(), "198.51.100.200", 1)[0] for _ in range(33)]
    assert tried[:30] == ["SIGN_IN_FAILED"] * 30
    assert "SIGN_IN_THROTTLED" in tried[30:]
    assert outcome(newcomer.sign_in, "198.51.100.200") == "SIGN_IN_THROTTLED"
    assert newcomer.sign_in("198.51.100.201").access_token
    assert resident.sign_in("198.51.100.200").access_token


def test_an_own_account_does_not_pay_for_guessing(auth: Auth) -> None:
    """Signing in with one's own password in between takes nothing back of what was counted for others."""
    attacker, victim = person(auth), person(auth)
    tried: list[str] = []
    for n in range(8):
        tried += guess(auth, victim.user.email, "198.51.100.210", 1)
        assert outcome(attacker.sign_in, "198.51.100.210") == "OK", n
    assert tried[:5] == ["SIGN_IN_FAILED"] * 5
    assert "SIGN_IN_THROTTLED" in tried[5:]


def test_a_claimed_address_and_a_fresh_ipv6_address_help_nobody(auth: Auth) -> None:
    """tests.people adds a claimed address before each; of IPv6 the network counts."""
    made = person(auth)
    tried = [guess(auth, made.user.email, f"2001:db8:1:2::{n:x}", 1)[0] for n in range(7)]
    assert tried == ["SIGN_IN_FAILED"] * 5 + ["SIGN_IN_THROTTLED"] * 2
    assert guess(auth, made.user.email, "2001:db8:1:3::1", 1) == ["SIGN_IN_FAILED"]


def test_many_guesses_at_once_are_no_way_around(auth: Auth) -> None:
    made = person(auth)
    outcomes = _together([lambda: sign_in(auth, made.user.email, "guess guess guess", "198.51.100.220")] * 20)
    assert outcomes.count("SIGN_IN_FAILED") <= 5
    assert set(outcomes) <= {"SIGN_IN_FAILED", "SIGN_IN_THROTTLED", "SIGN_IN_BUSY"}


def test_failures_are_forgotten_and_their_rows_deleted(
    installed: Installation, auth: Auth, later: Callable[[timedelta], None]
) -> None:
    email = fresh_email()
    assert guess(auth, email, "198.51.100.230", 6)[-1] == "SIGN_IN_THROTTLED"
    later(timedelta(hours=25))
    assert guess(auth, email, "198.51.100.230", 5) == ["SIGN_IN_FAILED"] * 5


# --- Two services, one database ---


@pytest.fixture(params=["sqlite", "postgresql"])
def replicas(installed: Installation, request: pytest.FixtureRequest) -> Iterator[list[Auth]]:
    """Two auth services on one database."""
    on = {"database": "replicas"}
    if request.param == "postgresql":
        on = {"database_url": request.getfixturevalue("postgresql_url")}
    with installed.auth(**on, **CHEAP) as one, installed.auth(**on, **CHEAP) as other:
        yield [one, other]


@pytest.mark.row("S2.6")
def test_a_refresh_race_has_one_winner_and_ends_the_session(replicas: list[Auth]) -> None:
    made = person(replicas[0])
    for _ in range(5):
        tokens, won = made.sign_in(), []
        calls = [
            lambda one=one, token=tokens.refresh_token, won=won: won.append(refresh(one, token)) for one in replicas * 2
        ]
        outcomes = _together(calls)
        assert outcomes.count("OK") == len(won) == 1
        # Who comes third finds that the session has ended already.
        assert sorted(outcomes) == ["OK", *["REFRESH_TOKEN_INVALID"] * 2, "REFRESH_TOKEN_REUSED"]
        assert [works(one, won[0].access_token) for one in replicas] == [False, False]
        assert outcome(refresh, replicas[1], won[0].refresh_token) == "REFRESH_TOKEN_INVALID"


def test_what_ends_at_one_service_holds_at_the_next_request_at_the_other(replicas: list[Auth]) -> None:
    one, other = replicas
    made = person(one)
    tokens = made.sign_in()
    assert works(other, tokens.access_token)
    ask(one, tokens.access_token, "SessionService", "EndSessions", pb.EndSessionsRequest())
    assert not works(other, tokens.access_token)
    assert outcome(refresh, other, tokens.refresh_token) == "REFRESH_TOKEN_INVALID"


def test_guesses_count_across_services(replicas: list[Auth]) -> None:
    made = person(replicas[0])
    tried = [guess(replicas[n % 2], made.user.email, "198.51.100.1", 1)[0] for n in range(7)]
    assert tried == ["SIGN_IN_FAILED"] * 5 + ["SIGN_IN_THROTTLED"] * 2
    email = fresh_email()
    calls = [lambda n=n: sign_in(replicas[n % 2], email, "guess guess guess", "198.51.100.2") for n in range(16)]
    assert _together(calls).count("SIGN_IN_FAILED") <= 5


def test_nobodys_address_is_the_callers_error_whatever_is_in_it(replicas: list[Auth]) -> None:
    for email in ("a\x00b@example.com", "\x00", "\ufdfa" * 254, "' OR 1=1 --"):
        assert outcome(sign_in, replicas[0], email, "pass\x00word pass\x00word") == "SIGN_IN_FAILED"
    wanted = users_pb2.ListUsersRequest(page_token=base64.urlsafe_b64encode(b"a\x00").decode())
    assert administer(replicas[0], "ListUsers", wanted)


def test_a_sign_in_takes_over_dearer_parameters(installed: Installation) -> None:
    with installed.auth("dearer", **CHEAP) as before:
        made = person(before)
        made.sign_in()
        assert b"$argon2id$v=19$m=32,t=1,p=1$" in before.stored_bytes()
    with installed.auth("dearer", **(CHEAP | {"password_memory_kib": 64, "password_passes": 2})) as after:
        computed = _computations()
        assert sign_in(after, made.user.email, PASSWORD).access_token
        assert _computations() == computed + 2
        assert b"$argon2id$v=19$m=64,t=2,p=1$" in after.stored_bytes()
        assert sign_in(after, made.user.email, PASSWORD).access_token
        assert _computations() == computed + 3


def test_changing_roles_and_refreshing_at_once_neither_fails_nor_leaves_an_old_role(replicas: list[Auth]) -> None:
    """Locks are taken in one order: no deadlock, and never a living session with the role of before."""
    made = person(replicas[0], "researcher")
    for role in ("viewer", "researcher") * 3:
        tokens, won = made.sign_in(), []
        request = users_pb2.UpdateUserRequest(id=made.id, role=role)
        calls: list[Callable[[], Any]] = [
            lambda token=tokens.refresh_token, won=won: won.append(refresh(replicas[0], token)),
            lambda request=request: administer(replicas[1], "UpdateUser", request),
        ]
        assert set(_together(calls)) <= {"OK", "REFRESH_TOKEN_INVALID"}
        assert [works(replicas[0], answer.access_token) for answer in won] in ([], [False])


def _together(calls: list[Callable[[], Any]]) -> list[str]:
    barrier, outcomes = threading.Barrier(len(calls)), []

    def run(call: Callable[[], Any]) -> None:
        barrier.wait()
        outcomes.append(outcome(call))

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def _computations() -> float:
    return REGISTRY.get_sample_value("strongroom_password_computations_total") or 0.0
