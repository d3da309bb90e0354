"""Versions of secrets through a real service: stages, expiry, deletion and destruction; labels, folders and search."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf import timestamp_pb2

from services.shared.identity import Grant, Principal
from strongroom.options.v1 import options_pb2
from strongroom.secrets.v1 import secrets_pb2 as pb
from tests.secrets_installation import PLANTED, Client, Installation

NOT_FOUND, FAILED = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("secrets"))


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[Client]:
    with installation.serving() as address:
        yield installation.client(address)


def after(**distance: float) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(datetime.now(UTC) + timedelta(**distance))
    return stamp


def wait_until(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def stages(client: Client, name: str) -> dict[int, str]:
    return {version.version: version.stage for version in client("ListSecretVersions", name=name).versions}


@pytest.mark.row("S4.3")
def test_a_pending_version_is_served_only_where_it_is_asked_for(client: Client) -> None:
    client("CreateSecret", name="staged", data={"n": "one"})
    assert client("StageSecretVersion", name="staged", data={"n": "two"}).stage == "pending"
    assert client.value("staged") == {"n": "one"}
    assert client.value("staged", stage="pending") == client.value("staged", version=2) == {"n": "two"}
    assert client.refusal("GetSecret", name="staged", stage="previous") == (NOT_FOUND, "SECRET_STAGE_NOT_FOUND")
    assert client("PromoteSecretVersion", name="staged", version=2).stage == "current"
    assert client.value("staged") == {"n": "two"}
    assert client.value("staged", stage="previous") == {"n": "one"}
    assert stages(client, "staged") == {2: "current", 1: "previous"}
    # Whoever was not told of the first answer asks again.
    assert client("PromoteSecretVersion", name="staged", version=2).stage == "current"


def test_one_version_is_pending_at_a_time_and_a_discarded_one_is_gone(client: Client) -> None:
    client("CreateSecret", name="discarded", data={"n": "one"})
    client("StageSecretVersion", name="discarded", data={"n": "two"})
    assert client.refusal("StageSecretVersion", name="discarded", data={}) == (FAILED, "VERSION_PENDING")
    assert client.refusal("DeleteSecret", name="discarded", versions=[2]) == (FAILED, "VERSION_PENDING")
    for _ in range(2):
        assert client("DiscardSecretVersion", name="discarded", version=2).HasField("destroyed_at")
    not_pending = (FAILED, "VERSION_NOT_PENDING")
    assert client.refusal("PromoteSecretVersion", name="discarded", version=2) == not_pending
    assert client.refusal("DiscardSecretVersion", name="discarded", version=1) == not_pending
    assert client.refusal("GetSecret", name="discarded", version=2) == (NOT_FOUND, "SECRET_VERSION_DESTROYED")
    assert client("StageSecretVersion", name="discarded", data={"n": "three"}).version == 3


def test_a_write_meanwhile_does_not_end_a_rotation(client: Client) -> None:
    client("CreateSecret", name="meanwhile", data={"n": "one"})
    client("StageSecretVersion", name="meanwhile", data={"n": "two"})
    assert client("UpdateSecret", name="meanwhile", data={"n": "three"}, expected_version=1).version == 3
    client("PromoteSecretVersion", name="meanwhile", version=2)
    assert stages(client, "meanwhile") == {3: "previous", 2: "current", 1: ""}
    mismatch = (grpc.StatusCode.ABORTED, "VERSION_MISMATCH")
    assert client.refusal("UpdateSecret", name="meanwhile", data={}, expected_version=3) == mismatch
    assert client("UpdateSecret", name="meanwhile", data={"n": "four"}, expected_version=2).version == 4


@pytest.mark.row("S4.1")
def test_a_deleted_secret_is_as_if_it_were_not_there_until_it_comes_back(client: Client) -> None:
    client("CreateSecret", name="gone/one", data={"n": "one"})
    client("DeleteSecret", name="gone/one")
    client("DeleteSecret", name="gone/one")
    deleted = (NOT_FOUND, "SECRET_DELETED")
    assert client.refusal("GetSecret", name="gone/one") == deleted
    assert client.refusal("GetSecret", name="gone/one", version=1) == deleted
    assert client.refusal("UpdateSecret", name="gone/one", data={}) == deleted
    assert client.refusal("StageSecretVersion", name="gone/one", data={}) == deleted
    assert client.names(prefix="gone/") == []
    assert client.names(prefix="gone/", show_deleted=True) == ["gone/one"]
    assert not client("UndeleteSecret", name="gone/one").HasField("deleted_at")
    assert client.value("gone/one") == {"n": "one"}


def test_a_deleted_secret_that_is_written_anew_does_not_show_what_it_held(client: Client) -> None:
    client("CreateSecret", name="anew", data={"n": "one"}, labels={"team": "a"})
    client("StageSecretVersion", name="anew", data={"n": "two"})
    client("DeleteSecret", name="anew")
    assert client("CreateSecret", name="anew", data={"n": "three"}).version == 3
    history = client("ListSecretVersions", name="anew")
    assert [(v.version, v.stage, v.HasField("deleted_at")) for v in history.versions] == [
        (3, "current", False), (2, "", True), (1, "", True),
    ]  # fmt: skip
    assert not history.secret.labels
    assert client.refusal("GetSecret", name="anew", version=1) == (NOT_FOUND, "SECRET_VERSION_DELETED")
    client("UndeleteSecret", name="anew", versions=[1])
    assert client.value("anew", version=1) == {"n": "one"}


@pytest.mark.row("S4.1")
def test_single_versions_are_deleted_brought_back_and_destroyed(installation: Installation, client: Client) -> None:
    for number in range(3):
        client("UpdateSecret", name="single", data={"n": str(number)}, allow_missing=True)
    client("DeleteSecret", name="single", versions=[1, 3])
    assert client.refusal("GetSecret", name="single") == (NOT_FOUND, "SECRET_VERSION_DELETED")
    assert client.value("single", version=2) == {"n": "1"}
    client("UndeleteSecret", name="single", versions=[3])
    assert client.value("single") == {"n": "2"}
    assert client("DestroySecret", name="single", versions=[1, 2]).destroyed_versions == 2
    assert client("DestroySecret", name="single", versions=[1, 2]).destroyed_versions == 0
    destroyed = (NOT_FOUND, "SECRET_VERSION_DESTROYED")
    assert client.refusal("GetSecret", name="single", version=2) == destroyed
    assert client.refusal("UndeleteSecret", name="single", versions=[2]) == destroyed
    assert installation.sql("SELECT sealed FROM secret_versions WHERE secret_name = 'single' AND version < 3") == [
        (b"",), (b"",),
    ]  # fmt: skip
    missing = (NOT_FOUND, "SECRET_VERSION_NOT_FOUND")
    for method in ("DeleteSecret", "UndeleteSecret", "DestroySecret"):
        assert client.refusal(method, name="single", versions=[3, 4]) == missing
        assert client.refusal(method, name="single", versions=[2**31]) == (INVALID, "FIELD_INVALID")
    assert client.value("single") == {"n": "2"}


def test_a_destroyed_value_stands_in_no_file(installation: Installation, client: Client) -> None:
    client("CreateSecret", name="shredded", data={"n": PLANTED})
    query = "SELECT sealed FROM secret_versions WHERE secret_name = 'shredded'"
    [(sealed,)] = installation.sql(query)
    client("DestroySecret", name="shredded", versions=[1])
    for path, content in installation.files():
        assert sealed not in content, path


@pytest.mark.row("S4.1")
def test_a_version_expires_and_the_next_one_does_not(client: Client) -> None:
    past = (INVALID, "EXPIRY_PAST")
    assert client.refusal("CreateSecret", name="expiring", data={}, expires_at=after(seconds=-1)) == past
    client("CreateSecret", name="expiring", data={"n": "one"}, expires_at=after(seconds=1))
    assert client.value("expiring") == {"n": "one"}
    expired = (FAILED, "SECRET_VERSION_EXPIRED")
    wait_until(lambda: client.outcome("GetSecret", name="expiring") is not grpc.StatusCode.OK)
    assert client.refusal("GetSecret", name="expiring") == expired
    assert client("EditSecret", name="expiring", never_expires=True).current_version == 1
    assert client.value("expiring") == {"n": "one"}
    client("EditSecret", name="expiring", expires_at=after(hours=1))
    assert client("ListSecrets", prefix="expiring").secrets[0].HasField("expires_at")
    client("UpdateSecret", name="expiring", data={"n": "two"})
    assert not client("GetSecret", name="expiring").HasField("expires_at")


@pytest.mark.row("S4.1")
def test_bytes_are_kept_and_what_only_looks_like_bytes_is_refused(client: Client) -> None:
    data = {"key": {"$base64": "AAH/"}, "deep": [{"more": {"$base64": ""}}]}
    client("CreateSecret", name="binary", data=data)
    assert client.value("binary") == data
    for wrong in ("AAH", "AA H/", "AAH/=", "AB==", PLANTED, 7, None, ["AAH/"]):
        refused = client.refusal("UpdateSecret", name="binary", data={"a": [{"key": {"$base64": wrong}}]})
        assert refused == (INVALID, "BINARY_INVALID")
    assert client.refusal("UpdateSecret", name="binary", data={"$base64": "", "b": 1}) == (INVALID, "BINARY_INVALID")


@pytest.mark.row("S4.1")
def test_secrets_are_found_by_words_and_labels_and_never_by_values(client: Client) -> None:
    client("CreateSecret", name="find/Prod-DB", data={"p": "needle"}, labels={"team": "Fraud", "tier": "1"})
    client("CreateSecret", name="find/stage-db", data={"p": "needle"}, labels={"team": "fraud"})
    both = ["find/Prod-DB", "find/stage-db"]
    assert client.names(query="FRAUD", prefix="find/") == both
    assert client.names(query="prod db") == ["find/Prod-DB"]
    assert client.names(query="needle") == []
    assert client.names(query="%") == client.names(query="_d") == []
    assert client.names(label=["team=fraud"]) == ["find/stage-db"]
    assert client.names(label=["team", "tier=1"]) == ["find/Prod-DB"]
    client("EditSecret", name="find/stage-db", set_labels={"tier": "1"}, remove_labels=["team"])
    assert client.names(label=["tier=1"]) == both
    assert dict(client("ListSecrets", prefix="find/stage").secrets[0].labels) == {"tier": "1"}
    assert client.refusal("EditSecret", name="find/stage-db", set_labels={"a b": "1"}) == (INVALID, "FIELD_INVALID")
    many = {f"k{number}": "" for number in range(32)}
    assert client.refusal("EditSecret", name="find/stage-db", set_labels=many) == (INVALID, "LABELS_INVALID")


def folders(client: Client, principal: Principal, prefix: str, size: int) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        page = client("ListSecrets", principal, prefix=prefix, by_folder=True, page_size=size, page_token=token)
        assert len(page.secrets) + len(page.folders) <= size
        found += sorted([*page.folders, *(secret.name for secret in page.secrets)])
        token = page.next_page_token
        if not token:
            return found


@pytest.mark.row("S4.1")
@pytest.mark.parametrize("size", [1, 2, 100])
def test_folders_are_told_once_and_only_with_something_to_see_in_them(client: Client, size: int) -> None:
    names = ["a", "a-b", "a/b", "a/b/c", "a/d", "b/c/d", "hidden/x", "z"]
    for name in names:
        client("UpdateSecret", name=f"tree/{name}", data={}, allow_missing=True)
    seen = Grant("allow", ("secrets.list",), ("secrets/tree/**",))
    all_but = Principal("key:l", grants=(seen, Grant("deny", ("*",), ("secrets/tree/hidden/**",))))
    assert folders(client, all_but, "tree/", size) == ["tree/a", "tree/a-b", "tree/a/", "tree/b/", "tree/z"]
    assert folders(client, all_but, "tree/a/", size) == ["tree/a/b", "tree/a/b/", "tree/a/d"]
    assert folders(client, all_but, "tree/hidden/", size) == []


def test_a_folder_of_very_many_is_passed_over(installation: Installation, client: Client) -> None:
    """Also one that ends beyond what is read at a time."""
    client("CreateSecret", name="wide/aa/0", data={})
    client("CreateSecret", name="wide/b", data={})
    columns = "key_id, current_version, last_version, previous_version, pending_version, created_at, updated_at"
    installation.sql(
        "PRAGMA foreign_keys=OFF",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) INSERT INTO secrets"  # noqa: S608
        f" (name, uid, {columns}) SELECT 'wide/aa/' || i, 'uid' || i, {columns.replace('key_id', 'i')} FROM secrets, n"
        " WHERE name = 'wide/b'",
    )
    page = client("ListSecrets", prefix="wide/", by_folder=True)
    assert (list(page.folders), [secret.name for secret in page.secrets]) == (["wide/aa/"], ["wide/b"])
    installation.sql("DELETE FROM secrets WHERE uid LIKE 'uid%'")


@pytest.mark.row("S4.1")
def test_history_is_paged_and_holds_no_value(client: Client) -> None:
    for number in range(5):
        client("UpdateSecret", name="history", data={"p": f"{PLANTED}{number}"}, allow_missing=True)
    found, token = [], ""
    while True:
        page = client("ListSecretVersions", name="history", page_size=2, page_token=token)
        assert PLANTED not in str(page)
        found += [version.version for version in page.versions]
        token = page.next_page_token
        if not token:
            break
    assert found == [5, 4, 3, 2, 1]
    wrong = (INVALID, "PAGE_TOKEN_INVALID")
    assert client.refusal("ListSecretVersions", name="history", page_token="bm90IGEgbnVtYmVy") == wrong


def test_destroying_is_a_permission_of_its_own(client: Client) -> None:
    client("CreateSecret", name="own", data={"n": "one"})
    deleter = Principal("key:d", grants=(Grant("allow", ("secrets.delete",), ("secrets/own",)),))
    denied = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
    client("DeleteSecret", deleter, name="own")
    assert client.refusal("DestroySecret", deleter, name="own") == denied
    client("UndeleteSecret", deleter, name="own")
    assert client.refusal("GetSecret", deleter, name="own") == denied
    assert client.value("own") == {"n": "one"}


def test_every_method_that_changes_or_shows_is_audited() -> None:
    quiet = {
        method.name
        for method in pb.DESCRIPTOR.services_by_name["SecretService"].methods
        if not method.GetOptions().Extensions[options_pb2.audited]
    }
    assert quiet == {"ListSecrets", "ListSecretVersions"}
