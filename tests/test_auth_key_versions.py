"""Rotation: a key keeps its id and rights while its secrets come and go."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from services.auth import key_format
from strongroom.auth.v1 import tokens_pb2
from tests.auth_installation import BOOTSTRAP_KEY, Auth, Installation, installation, reason_of

DAY = 86_400


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("auth")) as made:
        yield made


@pytest.fixture(scope="module")
def auth(installed: Installation) -> Iterator[Auth]:
    with installed.auth() as running:
        yield running


@pytest.fixture
def later(installed: Installation) -> Iterator[Any]:
    """Moves the clock of the service on."""

    def move(**ahead: float) -> None:
        installed.clock.ahead = timedelta(**ahead)

    yield move
    installed.clock.ahead = timedelta()


def _works(auth: Auth, key: str) -> bool:
    return auth.check_key(key).HasField("ok_response")


def _refused(auth: Auth, method: str, key: str = BOOTSTRAP_KEY, **fields: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        auth.keys(method, key, **fields)
    return reason_of(caught.value)


def _token(auth: Auth, key: str) -> str:
    return str(auth.call(key, "TokenService", "CreateToken", tokens_pb2.CreateTokenRequest()).access_token)


@pytest.mark.row("S1.10")
@pytest.mark.row("S3.6")
def test_both_secrets_work_until_the_grace_of_the_old_one_ends(auth: Auth, later: Any) -> None:
    made = auth.create(permission_set="predict", scopes=["managers/fraud/**"])
    rotated = auth.keys("RotateApiKey", id=made.id)
    assert (rotated.id, rotated.name, list(rotated.scopes)) == (made.id, made.name, list(made.scopes))
    assert key_format.parse(rotated.key)
    assert rotated.key_prefix != made.key_prefix
    assert (made.version, rotated.version) == (1, 2)
    new, old = rotated.versions
    assert (new.version, old.version, old.key_prefix) == (2, 1, made.key_prefix)
    assert not new.HasField("expires_at")
    # Unless told otherwise it is a day.
    assert old.expires_at.ToDatetime() - new.created_at.ToDatetime() == timedelta(days=1)
    identities = [auth.identity(key, "/strongroom.auth.v1.TokenService/GetCaller") for key in (made.key, rotated.key)]
    assert identities[0] != identities[1]
    for key in (made.key, rotated.key):
        caller = auth.call(key, "TokenService", "GetCaller", tokens_pb2.GetCallerRequest())
        assert caller.principal == f"key:{made.id}"
    later(days=1, seconds=1)
    assert (_works(auth, made.key), _works(auth, rotated.key)) == (False, True)
    assert [version.is_active for version in auth.get(made.id).versions] == [True, False]


@pytest.mark.row("S1.10")
def test_without_grace_the_old_secrets_end_at_once(installed: Installation, auth: Auth) -> None:
    made = auth.create(permission_set="read_only")
    second = auth.keys("RotateApiKey", id=made.id)
    tokens = [_token(auth, made.key), _token(auth, second.key)]
    credentials = {auth.credential(made.key), auth.credential(second.key)}
    third = auth.keys("RotateApiKey", id=made.id, grace_seconds=0)
    assert [_works(auth, key) for key in (made.key, second.key, third.key)] == [False, False, True]
    assert not any(auth.accepts_token(token) for token in tokens)
    assert auth.accepts_token(_token(auth, third.key))
    assert credentials <= set(auth.revocations(installed))
    assert auth.credential(third.key) not in auth.revocations(installed)
    # The one that works, and the latest that no longer does.
    assert [version.version for version in third.versions] == [3, 2]


def test_services_hear_of_the_end_of_a_grace(installed: Installation, auth: Auth) -> None:
    made = auth.create(permission_set="read_only")
    credential = auth.credential(made.key)
    auth.keys("RotateApiKey", id=made.id, grace_seconds=2)
    ended = time.monotonic() + 2
    assert credential not in auth.revocations(installed)
    assert _works(auth, made.key)
    while time.monotonic() < ended:
        time.sleep(0.05)
    assert credential in auth.revocations(installed)
    assert not _works(auth, made.key)


def test_no_token_outlives_the_grace_of_its_secret(auth: Auth) -> None:
    made = auth.create(permission_set="read_only")
    auth.keys("RotateApiKey", id=made.id, grace_seconds=60)
    answer = auth.call(made.key, "TokenService", "CreateToken", tokens_pb2.CreateTokenRequest())
    assert 50 < answer.expires_in <= 60


def test_a_shorter_grace_ends_older_secrets_sooner_and_a_longer_one_never_later(auth: Auth) -> None:
    made = auth.create(permission_set="read_only")
    auth.keys("RotateApiKey", id=made.id, grace_seconds=DAY)
    longer = auth.keys("RotateApiKey", id=made.id, grace_seconds=30 * DAY)
    ends = [version.expires_at.seconds - longer.versions[0].created_at.seconds for version in longer.versions[1:]]
    assert [round(end / DAY) for end in ends] == [30, 1]
    shorter = auth.keys("RotateApiKey", id=made.id, grace_seconds=60)
    assert {
        version.expires_at.seconds - shorter.versions[0].created_at.seconds for version in shorter.versions[1:]
    } == {60}


def test_five_secrets_work_at_a_time(auth: Auth) -> None:
    made = auth.create(permission_set="read_only")
    keys = [made.key, *(auth.keys("RotateApiKey", id=made.id).key for _ in range(4))]
    assert all(_works(auth, key) for key in keys)
    assert _refused(auth, "RotateApiKey", id=made.id) == "API_KEY_VERSIONS_EXHAUSTED"
    assert all(_works(auth, key) for key in keys)
    last = auth.keys("RotateApiKey", id=made.id, grace_seconds=0)
    assert [_works(auth, key) for key in [*keys, last.key]] == [False] * 5 + [True]


@pytest.mark.row("S2.5")
def test_revoking_ends_all_secrets(installed: Installation, auth: Auth) -> None:
    made = auth.create(permission_set="read_only")
    second = auth.keys("RotateApiKey", id=made.id)
    credentials = {auth.credential(made.key), auth.credential(second.key)}
    assert not auth.revoke(made.id).is_active
    assert not any(_works(auth, key) for key in (made.key, second.key))
    assert credentials <= set(auth.revocations(installed))
    assert not any(version.is_active for version in auth.get(made.id).versions)
    assert _refused(auth, "RotateApiKey", id=made.id) == "API_KEY_INACTIVE"


def test_a_key_rotates_itself_with_its_newest_secret_alone(auth: Auth) -> None:
    """Whoever found a leaked secret after it was rotated away must not rotate it back."""
    made = auth.create(permission_set="predict")
    second = auth.keys("RotateApiKey", made.key, id=made.id)
    assert _works(auth, second.key)
    assert _refused(auth, "RotateApiKey", made.key, id=made.id) == "LIFETIME_NOT_COVERED"
    assert auth.keys("RotateApiKey", second.key, id=made.id).version == 3


def test_a_secret_in_its_grace_makes_no_key_that_outlives_it(auth: Auth) -> None:
    made = auth.create(permission_set="full_access")
    auth.keys("RotateApiKey", id=made.id)
    for expires in ({}, {"expires_in_days": 2}):
        refused = _refused(auth, "CreateApiKey", made.key, name="more", permission_set="read_only", **expires)
        assert refused == "LIFETIME_NOT_COVERED"


def test_nobody_rotates_a_key_that_may_do_more_than_they(auth: Auth) -> None:
    strong = auth.create(permission_set="full_access")
    writer = auth.create(permissions=["keys.*", "models.read"])
    weak = auth.create(permissions=["models.read"])
    for method, fields in (("RotateApiKey", {}), ("UpdateApiKey", {"name": "mine"}), ("RevokeApiKey", {})):
        assert _refused(auth, method, writer.key, id=strong.id, **fields) == "GRANT_NOT_COVERED"
    assert auth.keys("RotateApiKey", writer.key, id=weak.id).version == 2
    assert not auth.keys("RevokeApiKey", writer.key, id=weak.id).is_active


def test_nobody_without_keys_write_rotates_or_ends_another_key_or_learns_that_it_is_there(auth: Auth) -> None:
    other, reader = auth.create(permission_set="read_only"), auth.create(permissions=["keys.read"])
    nobody = auth.create(permission_set="read_only")
    for method in ("RotateApiKey", "RevokeApiKey"):
        assert _refused(auth, method, nobody.key, id=other.id) == "API_KEY_NOT_FOUND"
        assert _refused(auth, method, nobody.key, id="01ARZ3NDEKTSV4RRFFQ69G5FAV") == "API_KEY_NOT_FOUND"
        assert _refused(auth, method, reader.key, id=other.id) == "PERMISSION_MISSING"
    assert _refused(auth, "GetApiKey", nobody.key, id=other.id) == "API_KEY_NOT_FOUND"
    assert auth.keys("GetApiKey", nobody.key, id=nobody.id).id == nobody.id
    assert auth.keys("GetApiKey", reader.key, id=other.id).id == other.id
    assert _works(auth, other.key)


def test_an_expired_key_is_not_rotated(auth: Auth, later: Any) -> None:
    made = auth.create(permission_set="read_only", expires_in_days=1)
    later(days=1)
    assert _refused(auth, "RotateApiKey", id=made.id) == "API_KEY_INACTIVE"


def test_the_environments_key_is_rotated_away_for_good(installed: Installation) -> None:
    with installed.auth(database="rotated") as auth:
        [administrator] = auth.keys("ListApiKeys").api_keys
        new = auth.keys("RotateApiKey", id=administrator.id, grace_seconds=0).key
        for _ in range(20):
            new = auth.keys("RotateApiKey", new, id=administrator.id, grace_seconds=0).key
        installed.clock.ahead = timedelta(hours=2)
        new = auth.keys("RotateApiKey", new, id=administrator.id, grace_seconds=0).key
    try:
        with installed.auth(database="rotated") as auth:
            assert not _works(auth, BOOTSTRAP_KEY)
            assert _works(auth, new)
            assert len(auth.keys("ListApiKeys", new).api_keys) == 1
    finally:
        installed.clock.ahead = timedelta()


@pytest.mark.row("S3.6")
@pytest.mark.parametrize("policy", [90, 180, 365])
def test_ages_are_judged_by_a_policy(installed: Installation, policy: int) -> None:
    with installed.auth(database=f"ages{policy}") as auth:
        old, rotated, gone, expired = (
            auth.create(name=name, permission_set="read_only", **extra)
            for name, extra in (
                ("old", {}),
                ("rotated", {}),
                ("gone", {}),
                ("expired", {"expires_in_days": 10}),
            )
        )
        auth.revoke(gone.id)
        try:
            installed.clock.ahead = timedelta(days=policy * 0.95)
            auth.keys("RotateApiKey", id=rotated.id)
            fresh = auth.create(name="fresh", permission_set="read_only")
            report = auth.keys("ReportKeyAges", max_age_days=policy)
            assert [(age.name, age.status) for age in report.keys] == [
                ("administrator", "due"),
                ("old", "due"),
                ("rotated", "ok"),
                ("fresh", "ok"),
            ]
            assert (report.total, report.overdue, report.max_age_days) == (4, 0, policy)
            installed.clock.ahead = timedelta(days=policy + 1)
            report = auth.keys("ReportKeyAges", max_age_days=policy, page_size=3)
            assert [(age.id, age.age_days, age.status) for age in report.keys][1:2] == [(old.id, policy + 1, "overdue")]
            assert (report.total, report.overdue) == (4, 2)
            rest = auth.keys("ReportKeyAges", max_age_days=policy, page_size=3, page_token=report.next_page_token)
            assert [age.id for age in rest.keys] == [fresh.id]
            assert rest.next_page_token == ""
            assert expired.id not in {age.id for age in [*report.keys, *rest.keys]}
            assert _refused(auth, "ReportKeyAges", page_token="nonsense") == "PAGE_TOKEN_INVALID"
        finally:
            installed.clock.ahead = timedelta()


def test_ages_are_for_who_may_read_keys(auth: Auth) -> None:
    nobody = auth.create(permission_set="read_only")
    assert _refused(auth, "ReportKeyAges", nobody.key) == "PERMISSION_MISSING"
    assert auth.keys("ReportKeyAges").max_age_days == 90
