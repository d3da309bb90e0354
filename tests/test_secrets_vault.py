"""Secrets through a real service: versions, check-and-set, listings, and nothing readable on disk (S4.1)."""

import math
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf import struct_pb2

from services.shared.identity import Grant, Principal
from tests.secrets_installation import PLANTED, Client, Installation
from tests.serving import ADMINISTRATOR

MISSING = (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
MISMATCH = (grpc.StatusCode.ABORTED, "VERSION_MISMATCH")


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Installation:
    return Installation(tmp_path_factory.mktemp("secrets"))


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[Client]:
    with installation.serving() as address:
        yield installation.client(address)


@pytest.mark.row("S4.1")
def test_a_secret_comes_back_as_it_was_stored(client: Client) -> None:
    data = {"user": "scorer", "port": 5432, "ratio": 0.5, "tls": True, "hosts": ["a", "b"], "none": None, "é": "ü"}
    assert client("CreateSecret", name="app/db", data=data).version == 1
    assert client.value("app/db") == data


def test_a_number_that_json_does_not_have_is_refused(client: Client) -> None:
    for number in (math.nan, math.inf, -math.inf):
        data = struct_pb2.Struct()
        data.update({"password": PLANTED, "limit": number})
        refusal = (grpc.StatusCode.INVALID_ARGUMENT, "DATA_NOT_JSON")
        assert client.refusal("CreateSecret", name="not-json", data=data) == refusal


@pytest.mark.row("S4.1")
def test_each_update_adds_a_version_and_old_ones_stay_readable(client: Client) -> None:
    client("CreateSecret", name="versions", data={"n": "one"})
    assert client("UpdateSecret", name="versions", data={"n": "two"}).version == 2
    assert client.value("versions") == {"n": "two"}
    assert client.value("versions", version=1) == {"n": "one"}
    history = client("ListSecretVersions", name="versions").versions
    assert [version.version for version in history] == [2, 1]
    assert history[0].created_by == ADMINISTRATOR.id
    assert client.refusal("GetSecret", name="versions", version=3) == (
        grpc.StatusCode.NOT_FOUND,
        "SECRET_VERSION_NOT_FOUND",
    )


def test_creating_twice_and_updating_nothing_are_refused(client: Client) -> None:
    client("CreateSecret", name="once", data={})
    assert client.refusal("CreateSecret", name="once", data={}) == (grpc.StatusCode.ALREADY_EXISTS, "SECRET_EXISTS")
    assert client.refusal("UpdateSecret", name="never", data={}) == MISSING
    assert client.refusal("GetSecret", name="never") == MISSING
    assert client.refusal("ListSecretVersions", name="never") == MISSING
    assert client.refusal("DeleteSecret", name="never") == MISSING
    assert client("UpdateSecret", name="never", data={}, allow_missing=True).version == 1


@pytest.mark.row("S4.1")
def test_check_and_set_writes_only_over_the_expected_version(client: Client) -> None:
    assert client.refusal("UpdateSecret", name="cas", data={}, expected_version=1) == MISSING
    assert client.refusal("UpdateSecret", name="cas", data={}, expected_version=1, allow_missing=True) == MISMATCH
    assert client("UpdateSecret", name="cas", data={"n": "one"}, expected_version=0).version == 1
    assert client.refusal("UpdateSecret", name="cas", data={}, expected_version=0) == MISMATCH
    assert client("UpdateSecret", name="cas", data={"n": "two"}, expected_version=1).version == 2
    assert client.refusal("UpdateSecret", name="cas", data={"n": "three"}, expected_version=1) == MISMATCH
    assert client.value("cas") == {"n": "two"}


def test_a_value_beyond_64_kib_is_refused(client: Client) -> None:
    too_large = (grpc.StatusCode.INVALID_ARGUMENT, "SECRET_TOO_LARGE")
    assert client.refusal("CreateSecret", name="large", data={"x": PLANTED + "x" * 65536}) == too_large
    client("CreateSecret", name="large", data={"x": "x" * (65536 - len('{"x":""}'))})


def test_a_whole_number_is_kept_as_one(client: Client) -> None:
    numbers = [3] * 32_000
    # As 3.0 each they would need 128 KB.
    client("CreateSecret", name="numbers", data={"numbers": numbers, "exact": 2**53, "negative": -7, "ratio": 0.1})
    assert client.value("numbers") == {"numbers": numbers, "exact": 2**53, "negative": -7, "ratio": 0.1}


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a b", "ä", "a" * 257, "a\n"])
def test_a_bad_name_is_refused(client: Client, name: str) -> None:
    code, reason = client.refusal("CreateSecret", name=name, data={})
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


@pytest.mark.row("S4.1")
def test_listing_is_paged_and_shows_what_the_caller_may_list(client: Client) -> None:
    for number in range(7):
        client("CreateSecret", name=f"team/a/{number}", data={})
        client("CreateSecret", name=f"team/b/{number}", data={})
    lister = Principal("key:l", grants=(Grant("allow", ("secrets.list",), ("secrets/team/b/*",)),))
    names: list[str] = []
    token = ""
    while True:
        page = client("ListSecrets", lister, page_size=3, page_token=token, prefix="team/")
        names += [secret.name for secret in page.secrets]
        assert len(page.secrets) <= 3
        token = page.next_page_token
        if not token:
            break
    assert names == [f"team/b/{number}" for number in range(7)]
    assert client.refusal("ListSecrets", page_token="?") == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


def test_a_wildcard_in_a_prefix_is_a_character(client: Client) -> None:
    client("CreateSecret", name="under_score", data={})
    client("CreateSecret", name="underXscore", data={})
    assert client.names(prefix="under_") == ["under_score"]


def test_a_prefix_is_compared_letter_by_letter(client: Client) -> None:
    for name in ("case/a", "Case/b", "case-c", "case", "case/a/b"):
        client("CreateSecret", name=name, data={})
    assert client.names(prefix="case/") == ["case/a", "case/a/b"]
    assert client.names(prefix="case") == ["case", "case-c", "case/a", "case/a/b"]
    assert client.names(prefix="case_") == []


def test_a_caller_without_the_permission_sees_nothing(client: Client) -> None:
    client("CreateSecret", name="guarded", data={"password": PLANTED})
    stranger = Principal("key:s", grants=(Grant("allow", ("models.*",), ("**",)),))
    for method, fields in {
        "CreateSecret": {"name": "guarded", "data": {}},
        "UpdateSecret": {"name": "guarded", "data": {}},
        "GetSecret": {"name": "guarded"},
        "ListSecretVersions": {"name": "guarded"},
        "ListSecrets": {},
        "DeleteSecret": {"name": "guarded"},
    }.items():
        assert client.refusal(method, stranger, **fields) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
    assert client.value("guarded") == {"password": PLANTED}


@pytest.mark.row("S4.1")
def test_a_deleted_secret_is_gone_and_its_key_destroyed(installation: Installation, client: Client) -> None:
    client("CreateSecret", name="doomed", data={"n": "one"})
    client("UpdateSecret", name="doomed", data={"n": "two"})
    [(key_id, uid)] = installation.sql("SELECT key_id, uid FROM secrets WHERE name = 'doomed'")
    assert client("DestroySecret", name="doomed").destroyed_versions == 2
    assert client.refusal("GetSecret", name="doomed")[1] == "SECRET_NOT_FOUND"
    for path, content in installation.files():
        assert key_id.encode() not in content, path
        assert uid.encode() not in content, path
    assert client("CreateSecret", name="doomed", data={}).version == 1


def test_no_value_is_readable_on_disk(installation: Installation, client: Client) -> None:
    client("CreateSecret", name="planted", data={"password": PLANTED})
    client.value("planted")
    for path, content in installation.files():
        assert PLANTED.encode() not in content, path


def test_a_value_of_very_many_parts_is_refused(client: Client) -> None:
    """By its size as a message, before its parts are looked at: those of a larger one would take seconds."""
    refusal = (grpc.StatusCode.INVALID_ARGUMENT, "SECRET_TOO_LARGE")
    assert client.refusal("CreateSecret", name="many", data={"x": [None] * 150_000}) == refusal
