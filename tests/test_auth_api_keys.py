"""ApiKeyService, through the edge's check and a real server."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from services.auth import key_format
from strongroom.auth.v1 import api_keys_pb2 as pb
from strongroom.auth.v1 import tokens_pb2
from tests.auth_installation import BOOTSTRAP_KEY, Auth, Installation, installation, reason_of


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture(scope="module")
def auth(installed: Installation) -> Iterator[Auth]:
    with installed.auth() as running:
        yield running


@pytest.mark.row("S2.2")
def test_a_key_is_shown_once_and_kept_nowhere(auth: Auth) -> None:
    with capture_logs() as logs:
        made = auth.create(description="for the test", permission_set="read_only", expires_in_days=30)
        assert auth.check_key(made.key).HasField("ok_response")
    parsed = key_format.parse(made.key)
    assert parsed is not None
    assert parsed.prefix == made.key_prefix
    assert made.expires_at.ToDatetime() - made.created_at.ToDatetime() == timedelta(days=30)
    shown = auth.get(made.id)
    assert not shown.HasField("key")
    assert (shown.name, shown.description, shown.is_active) == ("test", "for the test", True)
    secret = made.key.removeprefix(f"sr_{made.key_prefix}")
    assert secret.encode() not in auth.stored_bytes()
    assert made.key_prefix.encode() in auth.stored_bytes()
    assert secret not in repr(logs)
    assert secret not in repr(shown)


@pytest.mark.row("S2.2")
def test_only_who_may_write_keys_creates_them(auth: Auth) -> None:
    reader = auth.create(permission_set="read_only")
    with pytest.raises(grpc.RpcError) as caught:
        auth.create(reader.key, permission_set="read_only")
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason_of(caught.value) == "PERMISSION_MISSING"


def test_nobody_gives_away_more_than_they_hold(auth: Auth) -> None:
    steward = auth.create(permissions=["keys.write", "models.read"], scopes=["keys", "managers/fraud/**"])
    child = auth.create(steward.key, permissions=["models.read"], scopes=["managers/fraud/models/*"])
    assert child.created_by == f"key:{steward.id}"
    for fields in (
        {"permission_set": "full_access"},
        {"permissions": ["models.read"]},
        {"permissions": ["models.write"], "scopes": ["managers/fraud/**"]},
    ):
        with pytest.raises(grpc.RpcError) as caught:
            auth.create(steward.key, **fields)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert reason_of(caught.value) == "GRANT_NOT_COVERED"


@pytest.mark.row("S2.4")
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"permission_set": "nonsense"}, "PERMISSION_SET_UNKNOWN"),
        ({}, "PERMISSIONS_REQUIRED"),
        ({"permission_set": "read_only", "permissions": ["models.read"]}, "PERMISSIONS_REQUIRED"),
        ({"permissions": ["models.fly"]}, "PERMISSION_UNKNOWN"),
        ({"permissions": ["DROP TABLE"]}, "FIELD_INVALID"),
        ({"permission_set": "read_only", "name": "two\nlines"}, "FIELD_INVALID"),
        ({"permission_set": "read_only", "name": "a\0b"}, "FIELD_INVALID"),
        ({"permission_set": "read_only", "scopes": ["a//b"]}, "SCOPE_INVALID"),
    ],
)
def test_a_senseless_key_is_refused(auth: Auth, fields: dict[str, object], reason: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        auth.create(**fields)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == reason


@pytest.mark.row("S2.4")
def test_permission_sets_are_listed_and_custom_combinations_kept(auth: Auth) -> None:
    listed = auth.call(BOOTSTRAP_KEY, "ApiKeyService", "ListPermissionSets", pb.ListPermissionSetsRequest())
    sets = {entry.name: list(entry.permissions) for entry in listed.permission_sets}
    assert sets["full_access"] == ["*"]
    assert {"read_only", "training_pipeline", "prefect_workflows", "train", "predict"} < set(sets)
    made = auth.create(permissions=["models.*", "secrets.read"], scopes=["managers/a/**", "secrets/a/*"])
    assert list(made.permissions) == ["models.*", "secrets.read"]
    assert list(made.scopes) == ["managers/a/**", "secrets/a/*"]
    assert made.permission_set == ""


@pytest.mark.row("S2.5")
def test_prefixes_are_unique(auth: Auth) -> None:
    made = [auth.create(permission_set="read_only") for _ in range(5)]
    assert len({key.key_prefix for key in made}) == 5
    assert {len(key.key_prefix) for key in made} == {8}


@pytest.mark.row("S2.5")
def test_a_revoked_key_fails_at_the_next_check_through_every_replica(installed: Installation, auth: Auth) -> None:
    made = auth.create(permission_set="read_only")
    with installed.auth() as replica:
        assert replica.check_key(made.key).HasField("ok_response")
        revoked = auth.revoke(made.id)
        assert not revoked.is_active
        for instance in (auth, replica):
            denied = instance.check_key(made.key).denied_response
            assert (denied.status.code, denied.body) == (401, "Invalid authentication credentials")
        assert replica.revoke(made.id).revoked_at == revoked.revoked_at


@pytest.mark.row("S2.5")
def test_an_expired_key_fails_at_the_next_check(installed: Installation, auth: Auth) -> None:
    made = auth.create(permission_set="read_only", expires_in_days=1)
    assert auth.check_key(made.key).HasField("ok_response")
    installed.clock.ahead = timedelta(days=1, seconds=1)
    try:
        denied = auth.check_key(made.key).denied_response
        assert (denied.status.code, denied.body) == (401, "Invalid authentication credentials")
        assert not auth.get(made.id).is_active
    finally:
        installed.clock.ahead = timedelta()


@pytest.mark.row("S2.5")
def test_use_is_counted_beside_the_requests(auth: Auth) -> None:
    made = auth.create(permission_set="read_only")
    assert not auth.get(made.id).HasField("last_used_at")
    for _ in range(7):
        auth.call(made.key, "TokenService", "GetCaller", tokens_pb2.GetCallerRequest())
    deadline = time.monotonic() + 60
    while auth.get(made.id).usage_count < 7 and time.monotonic() < deadline:
        time.sleep(0.1)
    used = auth.get(made.id)
    assert used.usage_count == 7
    assert used.last_used_at.ToDatetime() >= made.created_at.ToDatetime()


@pytest.mark.row("S2.5")
def test_a_clean_stop_loses_no_use(installed: Installation) -> None:
    with installed.auth(database="stopped") as first:
        made = first.create(permission_set="read_only")
        for _ in range(3):
            first.call(made.key, "TokenService", "GetCaller", tokens_pb2.GetCallerRequest())
    with installed.auth(database="stopped") as second:
        assert second.get(made.id).usage_count == 3


def test_lists_are_paged_newest_first(installed: Installation) -> None:
    with installed.auth(database="paged") as auth:
        names = [auth.create(name=f"key {number}", permission_set="read_only").name for number in range(5)]
        first = _list(auth, BOOTSTRAP_KEY, page_size=4)
        second = _list(auth, BOOTSTRAP_KEY, page_size=4, page_token=first.next_page_token)
        assert second.next_page_token == ""
        listed = [key.name for key in [*first.api_keys, *second.api_keys]]
        assert listed == [*reversed(names), "administrator"]
        assert not any(key.HasField("key") for key in first.api_keys)


def test_lists_leave_out_inactive_keys_on_request(installed: Installation) -> None:
    with installed.auth(database="active") as auth:
        gone = auth.create(name="gone", permission_set="read_only")
        auth.create(name="kept", permission_set="read_only")
        auth.revoke(gone.id)
        names = [key.name for key in _list(auth, BOOTSTRAP_KEY, active_only=True).api_keys]
        assert names == ["kept", "administrator"]


def test_who_may_not_read_all_keys_lists_their_own(installed: Installation) -> None:
    with installed.auth(database="own") as auth:
        steward = auth.create(permissions=["keys.*", "models.read"], scopes=["keys", "managers/**"])
        own = auth.create(steward.key, permissions=["models.read"], scopes=["managers/a/**"])
        other = auth.create(permission_set="read_only")
        assert own.id in [key.id for key in _list(auth, steward.key).api_keys]
        assert other.id not in [key.id for key in _list(auth, steward.key).api_keys]
        assert not {own.id, steward.id} & {key.id for key in _list(auth, other.key).api_keys}


def test_a_made_up_page_token_and_an_unknown_id_are_told(auth: Auth) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _list(auth, BOOTSTRAP_KEY, page_token="nonsense")
    assert reason_of(caught.value) == "PAGE_TOKEN_INVALID"
    for attempt in (auth.get, auth.revoke):
        with pytest.raises(grpc.RpcError) as caught:
            attempt("01ARZ3NDEKTSV4RRFFQ69G5FAV")
        assert reason_of(caught.value) == "API_KEY_NOT_FOUND"


def test_the_database_is_for_its_owner_alone(auth: Auth) -> None:
    files: list[Path] = list(auth.database.parent.glob(f"{auth.database.stem}*"))
    assert files
    assert {file.stat().st_mode & 0o077 for file in files} == {0}


def _list(auth: Auth, key: str, **fields: object) -> pb.ListApiKeysResponse:
    answer = auth.call(key, "ApiKeyService", "ListApiKeys", pb.ListApiKeysRequest(**fields))
    assert isinstance(answer, pb.ListApiKeysResponse)
    return answer
