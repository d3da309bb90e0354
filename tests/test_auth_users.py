"""Users: created by administrators, changed by nobody who may do less, never without an administrator."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import grpc
import pytest

from strongroom.auth.v1 import api_keys_pb2 as keys_pb
from strongroom.auth.v1 import api_keys_pb2_grpc
from strongroom.auth.v1 import users_pb2 as pb
from tests.auth_installation import Auth, Installation, installation, reason_of
from tests.people import (
    CHEAP,
    PASSWORD,
    administer,
    ask,
    fresh_email,
    person,
    refresh,
    sign_in,
    whoami,
    works,
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture(scope="module")
def auth(installed: Installation) -> Iterator[Auth]:
    with installed.auth(**CHEAP) as running:
        yield running


def refused(call: Any, *arguments: Any) -> tuple[str, str]:
    """Code and reason of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    return caught.value.code().name, reason_of(caught.value)


def create(**fields: Any) -> pb.CreateUserRequest:
    wanted = {"email": fresh_email(), "role": "viewer", "password": PASSWORD} | fields
    return pb.CreateUserRequest(**wanted)


def update(auth: Auth, user_id: str, **changes: Any) -> pb.User:
    answer = administer(auth, "UpdateUser", pb.UpdateUserRequest(id=user_id, **changes))
    assert isinstance(answer, pb.User)
    return answer


@pytest.mark.row("S2.6")
def test_an_administrator_creates_a_user_who_signs_in(auth: Auth) -> None:
    made = person(auth, "researcher")
    assert (made.user.role, made.user.is_active, made.user.must_change_password) == ("researcher", True, False)
    assert not made.user.HasField("password")
    assert made.user.created_by.startswith("key:")
    tokens = made.sign_in()
    who = whoami(auth, tokens.access_token)
    assert (who.principal, who.name, who.role) == (f"user:{made.id}", made.user.email, "researcher")
    assert "ml.*" in who.grants[0].permissions
    assert administer(auth, "GetUser", pb.GetUserRequest(id=made.id)).HasField("last_sign_in_at")


def test_a_made_up_password_is_shown_once_and_must_be_changed(auth: Auth) -> None:
    made = person(auth, password="")
    assert len(made.password) == 23
    assert made.user.must_change_password
    assert not administer(auth, "GetUser", pb.GetUserRequest(id=made.id)).HasField("password")
    assert refused(made.sign_in) == ("FAILED_PRECONDITION", "PASSWORD_EXPIRED")
    assert refused(made.sign_in, "192.0.2.1", "", "short") == ("INVALID_ARGUMENT", "PASSWORD_WEAK")
    assert refused(made.sign_in, "192.0.2.1", "", made.password) == ("INVALID_ARGUMENT", "PASSWORD_WEAK")
    assert made.sign_in(new_password="another lantern orbit").role == "viewer"
    assert refused(made.sign_in) == ("UNAUTHENTICATED", "SIGN_IN_FAILED")
    assert made.sign_in(password="another lantern orbit").role == "viewer"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"email": "nobody"}, "EMAIL_INVALID"),
        ({"email": "a b@example.com"}, "EMAIL_INVALID"),
        ({"email": "a@example.com\r\nx: y"}, "EMAIL_INVALID"),
        ({"role": "king"}, "ROLE_UNKNOWN"),
        ({"role": ""}, "ROLE_UNKNOWN"),
        ({"password": "password1234"}, "PASSWORD_WEAK"),
        ({"password": "somebody@example.com", "email": "somebody@example.com"}, "PASSWORD_WEAK"),
    ],
)
def test_what_makes_no_user_is_refused(auth: Auth, fields: dict[str, str], reason: str) -> None:
    assert refused(administer, auth, "CreateUser", create(**fields)) == ("INVALID_ARGUMENT", reason)


def test_an_address_has_one_user_however_it_is_spelled(auth: Auth) -> None:
    made = person(auth)
    assert refused(administer, auth, "CreateUser", create(email=made.user.email.upper())) == (
        "ALREADY_EXISTS",
        "USER_EXISTS",
    )
    assert sign_in(auth, f" {made.user.email.upper()} ", PASSWORD).principal == f"user:{made.id}"


def test_users_are_listed_in_pages_by_address(auth: Auth) -> None:
    people = [person(auth) for _ in range(5)]
    update(auth, people[0].id, is_active=False)
    listed, token = [], ""
    while True:
        page = administer(auth, "ListUsers", pb.ListUsersRequest(page_size=2, page_token=token))
        listed += page.users
        token = page.next_page_token
        if not token:
            break
        assert len(page.users) == 2
    emails = [user.email for user in listed]
    assert emails == sorted(emails)
    assert {one.user.email for one in people} <= set(emails)
    active = administer(auth, "ListUsers", pb.ListUsersRequest(page_size=1000, active_only=True)).users
    assert people[0].id not in {user.id for user in active}
    wrong = pb.ListUsersRequest(page_token="%%%")
    assert refused(administer, auth, "ListUsers", wrong) == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


def test_the_roles_say_what_they_may(auth: Auth) -> None:
    roles = {role.name: role for role in administer(auth, "ListRoles", pb.ListRolesRequest()).roles}
    assert list(roles) == ["admin", "researcher", "analyst", "viewer", "guest"]
    assert list(roles["guest"].grants[0].resources) == ["managers/public/**"]


@pytest.mark.row("S2.6")
def test_a_new_role_holds_at_the_next_request(auth: Auth) -> None:
    made = person(auth, "researcher")
    tokens = made.sign_in()
    assert update(auth, made.id, role="guest", name="Grace").name == "Grace"
    assert not works(auth, tokens.access_token)
    assert refused(refresh, auth, tokens.refresh_token) == ("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID")
    assert whoami(auth, made.sign_in().access_token).role == "guest"


def test_another_name_ends_no_session(auth: Auth) -> None:
    made = person(auth)
    tokens = made.sign_in()
    update(auth, made.id, name="Grace", role="viewer")
    assert works(auth, tokens.access_token)


@pytest.mark.row("S2.6")
def test_who_is_deactivated_is_out_with_all_keys(auth: Auth) -> None:
    made = person(auth, "researcher")
    tokens = made.sign_in()
    key = auth.create(name="owned", permission_set="read_only", owner=f"user:{made.id}")
    assert auth.check_key(key.key).HasField("ok_response")
    update(auth, made.id, is_active=False)
    assert not works(auth, tokens.access_token)
    assert auth.check_key(key.key).denied_response.status.code == 401
    assert refused(made.sign_in) == ("UNAUTHENTICATED", "SIGN_IN_FAILED")
    update(auth, made.id, is_active=True)
    assert not works(auth, tokens.access_token)
    assert made.sign_in().access_token
    assert auth.check_key(key.key).denied_response.status.code == 401


def test_who_is_deleted_is_gone_with_all_keys(auth: Auth) -> None:
    made = person(auth, "researcher")
    tokens = made.sign_in()
    key = auth.create(name="owned", permission_set="read_only", owner=f"user:{made.id}")
    administer(auth, "DeleteUser", pb.DeleteUserRequest(id=made.id))
    assert not works(auth, tokens.access_token)
    assert auth.check_key(key.key).denied_response.status.code == 401
    for call in (
        lambda: administer(auth, "GetUser", pb.GetUserRequest(id=made.id)),
        lambda: administer(auth, "DeleteUser", pb.DeleteUserRequest(id=made.id)),
        lambda: update(auth, made.id, name="x"),
    ):
        assert refused(call) == ("NOT_FOUND", "USER_NOT_FOUND")
    assert refused(refresh, auth, tokens.refresh_token) == ("UNAUTHENTICATED", "REFRESH_TOKEN_INVALID")
    assert refused(made.sign_in) == ("UNAUTHENTICATED", "SIGN_IN_FAILED")
    # The address is free again, and nothing of the old user comes with it.
    again = person(auth, email=made.user.email)
    assert again.id != made.id
    assert not works(auth, tokens.access_token)


def test_a_reset_password_ends_the_sessions(auth: Auth) -> None:
    made = person(auth)
    tokens = made.sign_in()
    reset = administer(auth, "ResetPassword", pb.ResetPasswordRequest(id=made.id))
    assert not works(auth, tokens.access_token)
    assert refused(made.sign_in) == ("UNAUTHENTICATED", "SIGN_IN_FAILED")
    assert made.sign_in(password=reset.password, new_password="another lantern orbit").access_token


def test_an_administrator_signs_a_user_out(auth: Auth) -> None:
    made = person(auth)
    tokens = [made.sign_in(), made.sign_in()]
    assert administer(auth, "SignOutUser", pb.SignOutUserRequest(id=made.id)).ended_sessions == 2
    assert [works(auth, token.access_token) for token in tokens] == [False, False]


def test_nobody_acts_on_a_user_who_may_do_more(auth: Auth) -> None:
    """Whoever may only keep users can't make themselves an administrator, by any of the ways there are."""
    administrator, viewer = person(auth, "admin"), person(auth, "viewer")
    keeper = auth.create(
        name="keeper",
        permissions=["users.read", "users.write", "models.read", "configs.read", "artifacts.read", "jobs.read"],
    ).key
    attempts = [
        ("CreateUser", create(role="admin")),
        ("UpdateUser", pb.UpdateUserRequest(id=viewer.id, role="admin")),
        ("UpdateUser", pb.UpdateUserRequest(id=administrator.id, role="viewer")),
        ("UpdateUser", pb.UpdateUserRequest(id=administrator.id, is_active=False)),
        ("ResetPassword", pb.ResetPasswordRequest(id=administrator.id)),
        ("SignOutUser", pb.SignOutUserRequest(id=administrator.id)),
        ("DeleteUser", pb.DeleteUserRequest(id=administrator.id)),
    ]
    for method, request in attempts:
        outcome = refused(lambda method=method, request=request: administer(auth, method, request, keeper))
        assert outcome == ("PERMISSION_DENIED", "GRANT_NOT_COVERED"), method
    assert administer(auth, "UpdateUser", pb.UpdateUserRequest(id=viewer.id, name="V"), keeper).name == "V"
    assert administrator.sign_in().role == "admin"


def test_only_who_may_keeps_users(auth: Auth) -> None:
    tokens = person(auth, "researcher").sign_in()
    for method, request in (("CreateUser", create()), ("ListUsers", pb.ListUsersRequest())):
        outcome = refused(ask, auth, tokens.access_token, "UserService", method, request)
        assert outcome == ("PERMISSION_DENIED", "PERMISSION_MISSING")
    administrator = person(auth, "admin").sign_in()
    made = ask(auth, administrator.access_token, "UserService", "CreateUser", create())
    assert made.created_by == administrator.principal


def test_a_user_makes_keys_of_their_own(auth: Auth) -> None:
    """S2.2 with a user's token: the key outlives the session and belongs to the user."""
    administrator = person(auth, "admin")
    tokens = administrator.sign_in()
    stub = api_keys_pb2_grpc.ApiKeyServiceStub(auth.channel)
    request = keys_pb.CreateApiKeyRequest(name="mine", permission_set="read_only")
    key = stub.CreateApiKey(request, metadata=[("authorization", f"Bearer {tokens.access_token}")])
    assert key.owner == f"user:{administrator.id}"
    assert auth.check_key(key.key).HasField("ok_response")


@pytest.fixture(params=["sqlite", "postgresql"])
def replicas(installed: Installation, request: pytest.FixtureRequest) -> Iterator[list[Auth]]:
    """Two auth services on one empty database."""
    on = {"database": "replicas"}
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        on = {"database_url": server.create_database()}
    with installed.auth(**on, **CHEAP) as one, installed.auth(**on, **CHEAP) as other:
        yield [one, other]


def test_the_last_administrator_stays_whoever_is_faster(replicas: list[Auth]) -> None:
    """Each of two administrators removes the other, at once and through replicas: one of them comes too late."""
    one, other = replicas
    left = [person(one, "admin").id]
    for _ in range(5):
        demoted, deleted = left[0], person(one, "admin").id
        outcomes = _together(
            lambda: update(one, demoted, role="viewer"),  # noqa: B023
            lambda: administer(other, "DeleteUser", pb.DeleteUserRequest(id=deleted)),  # noqa: B023
        )
        assert sorted(outcomes) == ["LAST_ADMINISTRATOR", "OK"]
        users = administer(other, "ListUsers", pb.ListUsersRequest(page_size=1000)).users
        left = [user.id for user in users if user.role == "admin"]
        assert len(left) == 1
        for changes in ({"role": "viewer"}, {"is_active": False}):
            assert refused(lambda: update(one, left[0], **changes)) == (  # noqa: B023
                "FAILED_PRECONDITION",
                "LAST_ADMINISTRATOR",
            )


def test_one_address_gets_one_user_in_a_race(replicas: list[Auth]) -> None:
    email = fresh_email()
    outcomes = _together(*[lambda one=one: person(one, email=email) for one in replicas * 3])
    assert sorted(outcomes) == ["OK"] + ["USER_EXISTS"] * 5


def _together(*calls: Any) -> list[str]:
    """Makes the calls at the same moment; the reason of each, or OK."""
    barrier, outcomes = threading.Barrier(len(calls)), []

    def run(call: Any) -> None:
        barrier.wait()
        try:
            call()
        except grpc.RpcError as error:
            outcomes.append(reason_of(error))
        else:
            outcomes.append("OK")

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_the_environment_names_the_first_administrator(installed: Installation) -> None:
    settings = {"admin_email": "root@example.com", "admin_password": PASSWORD}
    with installed.auth("first", **settings, **CHEAP) as one:
        assert sign_in(one, "root@example.com", PASSWORD).role == "admin"
        root = administer(one, "ListUsers", pb.ListUsersRequest()).users[0]
        assert (root.created_by, root.must_change_password) == ("environment", False)
        sign_in(one, "root@example.com", PASSWORD, new_password="another lantern orbit")
    # A restart changes nothing: neither the password nor the role comes back.
    with installed.auth("first", **settings, **CHEAP) as again:
        assert refused(sign_in, again, "root@example.com", PASSWORD) == ("UNAUTHENTICATED", "SIGN_IN_FAILED")
        assert sign_in(again, "root@example.com", "another lantern orbit").role == "admin"
        assert len(administer(again, "ListUsers", pb.ListUsersRequest()).users) == 1
    assert PASSWORD.encode() not in b"".join(file.read_bytes() for file in (installed.folder / "db").iterdir())


@pytest.mark.row("S2.6")
def test_a_demotion_that_fails_half_way_has_not_happened(auth: Auth) -> None:
    """Role and keys change in one transaction: repeating it makes up for all of it."""
    strong = person(auth, "admin")
    key = auth.create(permission_set="full_access", owner=f"user:{strong.id}")
    trigger = "CREATE TRIGGER stop BEFORE UPDATE OF revoked_at ON api_keys BEGIN SELECT RAISE(ABORT, 'no'); END"
    with closing(sqlite3.connect(auth.database)) as database:
        database.execute(trigger)
    try:
        with pytest.raises(grpc.RpcError):
            update(auth, strong.id, role="viewer")
    finally:
        with closing(sqlite3.connect(auth.database)) as database:
            database.execute("DROP TRIGGER stop")
    assert auth.check_key(key.key).HasField("ok_response")
    assert update(auth, strong.id, role="viewer").role == "viewer"
    assert not auth.check_key(key.key).HasField("ok_response")
