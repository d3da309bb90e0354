"""Users and their tokens through the gateway, over REST and gRPC alike."""

import ipaddress
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
import pytest

from strongroom.auth.v1 import sessions_pb2, sessions_pb2_grpc, tokens_pb2, tokens_pb2_grpc, users_pb2, users_pb2_grpc
from strongroom.models.v1 import models_pb2, models_pb2_grpc
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc
from tests.callers import Caller, administrator
from tests.stack import Stack
from tests.uploads import Uploads

PASSWORD = "lantern orbit velvet"
_run, _numbers = time.time_ns(), count(1)


def fresh_email() -> str:
    return f"gateway{_run}-{next(_numbers)}@example.com"


@dataclass(frozen=True)
class User:
    """A user, and a caller with the access token of a session."""

    id: str
    email: str
    caller: Caller
    refresh_token: str = field(repr=False)


@pytest.fixture(scope="module")
def nobody(stack: Stack) -> Caller:
    """Someone without a credential."""
    return Caller(stack)


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Caller:
    """The administrator, in whose stack a model and a secret stand."""
    caller = administrator(stack)
    with grpc.insecure_channel(stack.target) as channel:
        uploads = Uploads(channel, stack.admin_key)
        if not uploads.exists("shared-with-users", "v1"):
            uploads.push("shared-with-users", "v1", {"weights.bin": b"weights"})
    caller.rest("PUT", "/api/v1/secrets/users/db", {"data": {"port": 5432}, "allow_missing": True})
    return caller


def bearer(stack: Stack, token: str) -> Caller:
    return Caller(stack, f"Bearer {token}", "Authorization")


def signed_in(admin: Caller, role: str) -> User:
    """A new user who has signed in, over REST."""
    email = fresh_email()
    status, made = admin.rest("POST", "/api/v1/users", {"email": email, "role": role, "password": PASSWORD})
    assert status == 201, made
    status, tokens = Caller(admin.stack).rest("POST", "/api/v1/sessions", {"email": email, "password": PASSWORD})
    assert status == 201, tokens
    return User(made["id"], email, bearer(admin.stack, tokens["access_token"]), tokens["refresh_token"])


def reads_models(caller: Caller) -> tuple[int, str]:
    status, _ = caller.rest("GET", "/api/v1/managers/default/models/shared-with-users/versions/v1")
    request = models_pb2.GetVersionRequest(manager_id="default", model_name="shared-with-users", version="v1")
    return status, caller.code(models_pb2_grpc.ModelServiceStub, "GetVersion", request)


def reads_secrets(caller: Caller) -> tuple[int, str]:
    status, _ = caller.rest("GET", "/api/v1/secrets/users/db")
    request = secrets_pb2.GetSecretRequest(name="users/db")
    return status, caller.code(secrets_pb2_grpc.SecretServiceStub, "GetSecret", request)


def keeps_users(caller: Caller) -> tuple[int, str]:
    status, _ = caller.rest("GET", "/api/v1/users")
    return status, caller.code(users_pb2_grpc.UserServiceStub, "ListUsers", users_pb2.ListUsersRequest())


def is_known(caller: Caller) -> tuple[int, str]:
    status, _ = caller.rest("GET", "/api/v1/caller")
    return status, caller.code(tokens_pb2_grpc.TokenServiceStub, "GetCaller", tokens_pb2.GetCallerRequest())


OK, DENIED, UNKNOWN = (200, "OK"), (403, "PERMISSION_DENIED"), (401, "UNAUTHENTICATED")


@pytest.mark.row("S2.1")
@pytest.mark.row("S2.6")
@pytest.mark.parametrize(
    ("role", "models", "secrets", "users"),
    [
        ("admin", OK, OK, OK),
        ("researcher", OK, DENIED, DENIED),
        ("analyst", OK, DENIED, DENIED),
        ("viewer", OK, DENIED, DENIED),
        ("guest", DENIED, DENIED, DENIED),
    ],
)
def test_a_users_token_is_a_credential_everywhere(
    admin: Caller, role: str, models: tuple[int, str], secrets: tuple[int, str], users: tuple[int, str]
) -> None:
    """A JWT does what an API key does, at all three services, as far as the role goes."""
    user = signed_in(admin, role)
    assert reads_models(user.caller) == models
    assert reads_secrets(user.caller) == secrets
    assert keeps_users(user.caller) == users
    status, who = user.caller.rest("GET", "/api/v1/caller")
    assert (status, who["principal"], who["name"], who["role"]) == (200, f"user:{user.id}", user.email, role)
    same = user.caller.grpc(tokens_pb2_grpc.TokenServiceStub, "GetCaller", tokens_pb2.GetCallerRequest())
    assert (same.principal, same.role) == (f"user:{user.id}", role)


@pytest.mark.row("S2.1")
@pytest.mark.row("S2.2")
def test_a_signed_in_administrator_makes_a_key(admin: Caller) -> None:
    """As the document does it: `Authorization: Bearer YOUR_JWT_TOKEN`."""
    user = signed_in(admin, "admin")
    wish = {"name": "training-pipeline", "permission_set": "training_pipeline"}
    status, key = user.caller.rest("POST", "/api-keys/", wish)
    assert (status, key["owner"]) == (201, f"user:{user.id}")
    assert reads_models(Caller(admin.stack, key["key"])) == OK
    researcher = signed_in(admin, "researcher")
    assert researcher.caller.rest("POST", "/api-keys/", wish)[0] == 403


@pytest.mark.row("S2.6")
def test_sign_in_refresh_and_replay_over_rest(admin: Caller, nobody: Caller) -> None:
    user = signed_in(admin, "viewer")
    status, second = nobody.rest("POST", "/api/v1/sessions:refresh", {"refresh_token": user.refresh_token})
    assert (status, second["token_type"], second["expires_in"], second["role"]) == (201, "Bearer", 600, "viewer")
    renewed = bearer(admin.stack, second["access_token"])
    assert reads_models(renewed) == OK
    status, problem = nobody.rest("POST", "/api/v1/sessions:refresh", {"refresh_token": user.refresh_token})
    assert (status, problem["reason"], problem["status_code"]) == (401, "REFRESH_TOKEN_REUSED", 401)
    assert user.refresh_token not in json.dumps(problem)
    assert is_known(renewed) == UNKNOWN
    status, problem = nobody.rest("POST", "/api/v1/sessions:refresh", {"refresh_token": second["refresh_token"]})
    assert (status, problem["reason"]) == (401, "REFRESH_TOKEN_INVALID")


@pytest.mark.row("S2.6")
def test_sign_in_refresh_and_replay_over_grpc(admin: Caller, nobody: Caller) -> None:
    email = fresh_email()
    create = users_pb2.CreateUserRequest(email=email, role="viewer", password=PASSWORD)
    admin.grpc(users_pb2_grpc.UserServiceStub, "CreateUser", create)
    sessions = sessions_pb2_grpc.SessionServiceStub
    tokens = nobody.grpc(sessions, "SignIn", sessions_pb2.SignInRequest(email=email, password=PASSWORD))
    refresh = sessions_pb2.RefreshSessionRequest(refresh_token=tokens.refresh_token)
    second = nobody.grpc(sessions, "RefreshSession", refresh)
    assert reads_models(bearer(admin.stack, second.access_token)) == OK
    assert nobody.code(sessions, "RefreshSession", refresh) == "UNAUTHENTICATED"
    assert is_known(bearer(admin.stack, second.access_token)) == UNKNOWN


@pytest.mark.row("S2.6")
def test_a_refresh_race_through_the_gateway_has_one_winner(admin: Caller, nobody: Caller) -> None:
    user = signed_in(admin, "viewer")
    barrier, statuses = threading.Barrier(4), []

    def refresh() -> None:
        barrier.wait()
        body = {"refresh_token": user.refresh_token}
        statuses.append(nobody.rest("POST", "/api/v1/sessions:refresh", body)[0])

    threads = [threading.Thread(target=refresh) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 401, 401, 401]
    assert is_known(user.caller) == UNKNOWN


@pytest.mark.row("S2.6")
def test_a_demoted_user_loses_what_the_role_allowed(admin: Caller) -> None:
    """At auth at the next request, at the other services within the five seconds between two looks at revocations."""
    user = signed_in(admin, "admin")
    assert reads_secrets(user.caller) == OK
    status, changed = admin.rest("PUT", f"/api/v1/users/{user.id}", {"role": "guest"})
    assert (status, changed["role"]) == (200, "guest")
    assert keeps_users(user.caller) == UNKNOWN
    deadline = time.monotonic() + 8
    while reads_secrets(user.caller) != UNKNOWN or reads_models(user.caller) != UNKNOWN:
        assert time.monotonic() < deadline, "the token of an ended session still works"
        time.sleep(0.2)


@pytest.mark.row("S2.6")
def test_a_demoted_user_keeps_the_keys_that_the_new_role_covers(admin: Caller) -> None:
    user = signed_in(admin, "admin")
    keys = {}
    for permission_set in ("full_access", "read_only"):
        fields = {"name": permission_set, "permission_set": permission_set}
        keys[permission_set] = Caller(admin.stack, user.caller.rest("POST", "/api-keys", fields)[1]["key"])
    assert [is_known(key) for key in keys.values()] == [OK, OK]
    admin.rest("PUT", f"/api/v1/users/{user.id}", {"role": "viewer"})
    assert [is_known(key) for key in keys.values()] == [UNKNOWN, OK]
    assert admin.rest("DELETE", f"/api/v1/users/{user.id}") == (200, {"revoked_keys": 1})
    assert is_known(keys["read_only"]) == UNKNOWN


@pytest.mark.row("S2.6")
def test_the_life_of_a_user_over_rest(admin: Caller, nobody: Caller) -> None:
    email = fresh_email()
    status, made = admin.rest("POST", "/api/v1/users", {"email": email, "name": "Ada", "role": "researcher"})
    assert (status, made["must_change_password"], len(made["password"])) == (201, True, 23)
    assert admin.rest("POST", "/api/v1/users", {"email": email, "role": "viewer"})[1]["reason"] == "USER_EXISTS"
    sign_in = {"email": email, "password": made["password"]}
    status, problem = nobody.rest("POST", "/api/v1/sessions", sign_in)
    assert (status, problem["reason"]) == (400, "PASSWORD_EXPIRED")
    status, tokens = nobody.rest("POST", "/api/v1/sessions", sign_in | {"new_password": PASSWORD})
    assert (status, tokens["principal"]) == (201, f"user:{made['id']}")
    caller = bearer(admin.stack, tokens["access_token"])
    status, listed = caller.rest("GET", "/api/v1/sessions")
    assert (status, [session["is_current"] for session in listed["sessions"]]) == (200, [True])
    # Envoy names the machine's own address for callers on the loopback.
    assert ipaddress.ip_address(listed["sessions"][0]["address"])
    change = {"current_password": PASSWORD, "new_password": "another lantern orbit"}
    assert caller.rest("POST", "/api/v1/password", change)[0] == 200
    assert admin.rest("POST", "/api/v1/password", change)[1]["reason"] == "USER_REQUIRED"
    status, ended = admin.rest("POST", f"/api/v1/users/{made['id']}:signOut", {})
    assert (status, ended["ended_sessions"]) == (200, 1)
    assert is_known(caller) == UNKNOWN
    status, reset = admin.rest("POST", f"/api/v1/users/{made['id']}:resetPassword", {})
    assert (status, reset["must_change_password"]) == (200, True)
    assert "password" not in admin.rest("GET", f"/api/v1/users/{made['id']}")[1]
    status, deleted = admin.rest("DELETE", f"/api/v1/users/{made['id']}")
    assert (status, deleted["revoked_keys"]) == (200, 0)
    assert admin.rest("GET", f"/api/v1/users/{made['id']}")[1]["reason"] == "USER_NOT_FOUND"


@pytest.mark.row("S2.6")
def test_a_deactivated_users_keys_stop(admin: Caller) -> None:
    user = signed_in(admin, "admin")
    _, key = user.caller.rest("POST", "/api-keys/", {"name": "mine", "permission_set": "read_only"})
    owned = Caller(admin.stack, key["key"])
    assert reads_models(owned) == OK
    assert admin.rest("PUT", f"/api/v1/users/{user.id}", {"is_active": False})[0] == 200
    assert is_known(owned) == UNKNOWN
    assert is_known(user.caller) == UNKNOWN
    assert reads_models(owned) == UNKNOWN


def test_signing_out_over_rest(admin: Caller, nobody: Caller) -> None:
    user, other = signed_in(admin, "viewer"), signed_in(admin, "viewer")
    assert nobody.rest("POST", "/api/v1/sessions:end", {"refresh_token": user.refresh_token})[0] == 200
    assert is_known(user.caller) == UNKNOWN
    status, ended = other.caller.rest("DELETE", "/api/v1/sessions")
    assert (status, ended["ended_sessions"]) == (200, 1)
    assert is_known(other.caller) == UNKNOWN


@pytest.mark.row("S2.6")
def test_guessing_is_slowed_whatever_address_a_client_claims(admin: Caller, nobody: Caller) -> None:
    """429, and RetryInfo that says when; an `X-Forwarded-For` of the client's own changes nothing."""
    email = fresh_email()
    admin.rest("POST", "/api/v1/users", {"email": email, "role": "viewer", "password": PASSWORD})
    answers = [_guess(admin.stack, email, f"198.51.100.{n}") for n in range(7)]
    assert [status for status, _ in answers] == [401] * 5 + [429] * 2
    assert {problem["reason"] for _, problem in answers[:5]} == {"SIGN_IN_FAILED"}
    throttled = answers[-1][1]
    assert throttled["reason"] == "SIGN_IN_THROTTLED"
    [retry] = [detail for detail in throttled["details"] if detail["@type"].endswith("RetryInfo")]
    seconds = float(retry["retry_delay"].removesuffix("s"))
    assert 0 < seconds <= 4
    time.sleep(seconds)
    assert nobody.rest("POST", "/api/v1/sessions", {"email": email, "password": PASSWORD})[0] == 201


def _guess(stack: Stack, email: str, claimed: str) -> tuple[int, Any]:
    body = json.dumps({"email": email, "password": "not the password"}).encode()
    request = urllib.request.Request(f"{stack.url}/api/v1/sessions", body, method="POST")  # noqa: S310
    request.add_header("content-type", "application/json")
    request.add_header("x-forwarded-for", claimed)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=20)  # noqa: S310
    return caught.value.code, json.loads(caught.value.read())


def test_no_password_and_no_token_reaches_a_log(admin: Caller) -> None:
    user = signed_in(admin, "viewer")
    time.sleep(0.5)
    logs = b"".join(log.read_bytes() for log in (admin.stack.data_dir / "logs").glob("*.log"))
    for secret in (PASSWORD, user.refresh_token, user.caller.credential):
        assert secret.encode() not in logs
