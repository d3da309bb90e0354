"""Secrets through a real service: versions, check-and-set, listings, and nothing readable on disk (S4.1)."""

import base64
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.secrets.bootstrap import build
from services.secrets.envelope import EnvelopeError
from services.secrets.keyring import WrongRootKey
from services.secrets.root_key import RootKeyError
from services.secrets.settings import SecretsSettings
from services.shared.identity import Grant, Principal
from services.shared.service import Service
from strongroom.secrets.v1 import secrets_pb2 as pb
from strongroom.secrets.v1 import secrets_pb2_grpc
from tests.serving import ADMINISTRATOR, make_identities, make_token_maker, serving

PLANTED = "correct-horse-battery-staple-4711"


class Client:
    """Calls the service as the gateway does, with an identity token."""

    def __init__(self, address: str, tokens) -> None:
        self.stub = secrets_pb2_grpc.SecretServiceStub(grpc.insecure_channel(address))
        self.tokens = tokens

    def __call__(self, method: str, principal: Principal = ADMINISTRATOR, **fields):
        if "data" in fields:
            fields["data"] = json_format.ParseDict(fields["data"], struct_pb2.Struct())
        name = getattr(self.stub, method)
        request = getattr(pb, f"{method}Request")(**fields)
        return name(request, metadata=self.tokens.metadata("secrets", principal), timeout=10)

    def value(self, name: str, **fields) -> dict:
        return json_format.MessageToDict(self("GetSecret", name=name, **fields).data)

    def reason(self, method: str, principal: Principal = ADMINISTRATOR, **fields) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self(method, principal, **fields)
        info = error_details_pb2.ErrorInfo()
        rpc_status.from_call(caught.value).details[0].Unpack(info)
        assert PLANTED not in caught.value.details()
        return caught.value.code(), info.reason


class Installation:
    """A folder with root key and identities, in which the service can be started again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = make_token_maker()
        make_identities(folder / "keys")
        self.root_key = folder / "root.key"
        self.root_key.touch(mode=0o600)
        self.root_key.write_bytes(base64.b64encode(os.urandom(32)))

    @property
    def settings(self) -> SecretsSettings:
        return SecretsSettings(
            database_url=f"sqlite:///{self.folder / 'db' / 'strongroom.db'}",
            identity_dir=self.folder / "keys",
            root_key_file=self.root_key,
            secrets_listen="127.0.0.1:0",
        )

    def build(self, settings: SecretsSettings) -> Service:
        """The real service; only the key its callers' tokens are signed with is the test's."""
        service = build(settings)
        service.verifier._access_keys = self.tokens.access_keys
        return service

    def serving(self):
        return serving(self.build, self.settings)

    @property
    def database(self) -> Path:
        return self.folder / "db" / "strongroom-secrets.db"


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Installation:
    return Installation(tmp_path_factory.mktemp("secrets"))


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[Client]:
    with installation.serving() as address:
        yield Client(address, installation.tokens)


@pytest.mark.row("S4.1")
def test_a_secret_comes_back_as_it_was_stored(client: Client) -> None:
    data = {"user": "scorer", "port": 5432, "ratio": 0.5, "tls": True, "hosts": ["a", "b"], "none": None, "é": "ü"}
    assert client("CreateSecret", name="app/db", data=data).version == 1
    assert client.value("app/db") == data


@pytest.mark.row("S4.1")
def test_each_update_adds_a_version_and_old_ones_stay_readable(client: Client) -> None:
    client("CreateSecret", name="versions", data={"n": "one"})
    assert client("UpdateSecret", name="versions", data={"n": "two"}).version == 2
    assert client.value("versions") == {"n": "two"}
    assert client.value("versions", version=1) == {"n": "one"}
    history = client("ListSecretVersions", name="versions").versions
    assert [version.version for version in history] == [2, 1]
    assert history[0].created_by == ADMINISTRATOR.id
    assert client.reason("GetSecret", name="versions", version=3) == (
        grpc.StatusCode.NOT_FOUND,
        "SECRET_VERSION_NOT_FOUND",
    )


def test_creating_twice_and_updating_nothing_are_refused(client: Client) -> None:
    client("CreateSecret", name="once", data={})
    assert client.reason("CreateSecret", name="once", data={}) == (grpc.StatusCode.ALREADY_EXISTS, "SECRET_EXISTS")
    missing = (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
    assert client.reason("UpdateSecret", name="never", data={}) == missing
    assert client.reason("GetSecret", name="never") == missing
    assert client.reason("ListSecretVersions", name="never") == missing
    assert client.reason("DeleteSecret", name="never") == missing
    assert client("UpdateSecret", name="never", data={}, allow_missing=True).version == 1


@pytest.mark.row("S4.1")
def test_check_and_set_writes_only_over_the_expected_version(client: Client) -> None:
    mismatch = (grpc.StatusCode.ABORTED, "VERSION_MISMATCH")
    assert client.reason("UpdateSecret", name="cas", data={}, expected_version=1) == mismatch
    assert client("UpdateSecret", name="cas", data={"n": "one"}, expected_version=0).version == 1
    assert client.reason("UpdateSecret", name="cas", data={}, expected_version=0) == mismatch
    assert client("UpdateSecret", name="cas", data={"n": "two"}, expected_version=1).version == 2
    assert client.reason("UpdateSecret", name="cas", data={"n": "three"}, expected_version=1) == mismatch
    assert client.value("cas") == {"n": "two"}


def test_of_concurrent_check_and_set_writes_one_wins_each_version(client: Client) -> None:
    client("CreateSecret", name="race", data={"n": "0"})
    won: list[int] = []

    def write(author: int) -> None:
        for expected in range(1, 6):
            try:
                data = {"n": f"{author}"}
                won.append(client("UpdateSecret", name="race", data=data, expected_version=expected).version)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.ABORTED:
                    raise

    threads = [threading.Thread(target=write, args=(author,)) for author in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(set(won))
    assert len(client("ListSecretVersions", name="race").versions) == max(won)


def test_a_value_beyond_64_kib_is_refused(client: Client) -> None:
    too_large = (grpc.StatusCode.INVALID_ARGUMENT, "SECRET_TOO_LARGE")
    assert client.reason("CreateSecret", name="large", data={"x": PLANTED + "x" * 65536}) == too_large
    client("CreateSecret", name="large", data={"x": "x" * (65536 - len('{"x":""}'))})


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a b", "ä", "a" * 257, "a\n"])
def test_a_bad_name_is_refused(client: Client, name: str) -> None:
    code, reason = client.reason("CreateSecret", name=name, data={})
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
    assert client.reason("ListSecrets", page_token="?") == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


def test_a_wildcard_in_a_prefix_is_a_character(client: Client) -> None:
    client("CreateSecret", name="under_score", data={})
    client("CreateSecret", name="underXscore", data={})
    page = client("ListSecrets", prefix="under_")
    assert [secret.name for secret in page.secrets] == ["under_score"]


@pytest.mark.row("S4.1")
def test_a_deleted_secret_is_gone_and_its_key_destroyed(installation: Installation, client: Client) -> None:
    client("CreateSecret", name="doomed", data={"n": "one"})
    client("UpdateSecret", name="doomed", data={"n": "two"})
    with sqlite3.connect(installation.database) as connection:
        [(key_id, uid)] = connection.execute("SELECT key_id, uid FROM secrets WHERE name = 'doomed'").fetchall()
    assert client("DeleteSecret", name="doomed").destroyed_versions == 2
    assert client.reason("GetSecret", name="doomed")[1] == "SECRET_NOT_FOUND"
    stored = b"".join(path.read_bytes() for path in installation.database.parent.iterdir())
    assert key_id.encode() not in stored
    assert uid.encode() not in stored
    assert client("CreateSecret", name="doomed", data={}).version == 1


def test_no_value_is_readable_on_disk(installation: Installation, client: Client) -> None:
    client("CreateSecret", name="planted", data={"password": PLANTED})
    client.value("planted")
    for path in installation.folder.rglob("*"):
        if path.is_file():
            assert PLANTED.encode() not in path.read_bytes(), path


def test_no_value_reaches_the_log(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    client("CreateSecret", name="logged", data={"password": PLANTED})
    client.value("logged")
    client.reason("CreateSecret", name="logged", data={"password": PLANTED})
    written = capsys.readouterr()
    assert PLANTED not in written.out + written.err


def test_a_row_moved_to_another_secret_or_changed_is_not_served(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    with installation.serving() as address:
        client = Client(address, installation.tokens)
        for name in ("one", "two"):
            client("CreateSecret", name=name, data={"secret": name})
        client("UpdateSecret", name="one", data={"secret": "one, changed"})
        with sqlite3.connect(installation.database, isolation_level=None) as connection:
            moves = (
                "UPDATE secret_versions SET sealed = (SELECT sealed FROM secret_versions WHERE secret_name = 'two')"
                " WHERE secret_name = 'one' AND version = 1",
                "UPDATE secret_versions SET sealed = zeroblob(40) WHERE secret_name = 'two'",
            )
            for move in moves:
                connection.execute(move)
        damaged = (grpc.StatusCode.DATA_LOSS, "SECRET_DAMAGED")
        assert client.reason("GetSecret", name="one", version=1) == damaged
        assert client.reason("GetSecret", name="two") == damaged
        assert client.value("one") == {"secret": "one, changed"}


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    with installation.serving() as address:
        Client(address, installation.tokens)("CreateSecret", name="kept", data={"n": "one"})
    with installation.serving() as address:
        assert Client(address, installation.tokens).value("kept") == {"n": "one"}


def test_another_root_key_is_noticed_at_the_start(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    build(installation.settings).close()
    installation.root_key.write_bytes(base64.b64encode(os.urandom(32)))
    with pytest.raises(WrongRootKey, match="another root key"):
        build(installation.settings)


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"not base64!", 0o600, "not base64"),
        (base64.b64encode(b"short"), 0o600, "5 bytes instead of 32"),
        (base64.b64encode(bytes(32)), 0o644, "chmod 600"),
        (None, 0o600, "can't be read"),
    ],
)
def test_a_bad_root_key_says_what_to_do(tmp_path: Path, content: bytes | None, mode: int, message: str) -> None:
    installation = Installation(tmp_path)
    installation.root_key.unlink()
    if content is not None:
        installation.root_key.write_bytes(content)
        installation.root_key.chmod(mode)
    with pytest.raises(RootKeyError, match=message):
        build(installation.settings)


def test_envelope_errors_say_nothing_of_their_content() -> None:
    assert PLANTED not in str(EnvelopeError())
