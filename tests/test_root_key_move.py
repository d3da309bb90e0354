"""The root key moves while everything is in use; on SQLite and on PostgreSQL."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from services.secrets import envelope
from services.secrets.bootstrap import build
from services.secrets.root_generations import RootGenerations
from services.secrets.root_keys import file as root_key_file
from services.secrets.root_keys.root_key import RootKeyError
from services.secrets.root_keys.source import RootKeySource
from services.secrets.root_move import RootMove
from services.shared.database import Database
from services.shared.service import Server
from strongroom.secrets.v1 import root_key_pb2 as pb
from strongroom.secrets.v1 import root_key_pb2_grpc
from tests import aws, openbao, postgresql
from tests.broken_line import BrokenLine, broken_line
from tests.models_installation import Clock
from tests.secrets_installation import Caller, Installation, Refusal, refusal
from tests.serving import ADMINISTRATOR, wait_healthy
from tests.test_root_keys import Transit, write_root_key

pytestmark = pytest.mark.row("S4.6")
MIGRATIONS = Path(__file__).parents[1] / "services" / "secrets" / "migrations"


@pytest.fixture(scope="module")
def transit(openbao_server: openbao.OpenBaoServer) -> Transit:
    return Transit(openbao_server, openbao_server.transit())


@pytest.fixture(scope="module")
def kms() -> Iterator[tuple[str, str]]:
    with aws.moto() as url:
        yield url, aws.client("kms", url).create_key()["KeyMetadata"]["KeyId"]


# On the database of this name; on SQLite if a test names none.
everywhere = pytest.mark.parametrize("installation", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    url = None
    if getattr(request, "param", "sqlite") == "postgresql":
        server: postgresql.Server = request.getfixturevalue("postgresql_server")
        url = server.create_database()
    return configured(Installation(tmp_path, url))


def configured(installation: Installation, text: str = "") -> Installation:
    """With a second root key in a file, and what else `text` says."""
    if not (installation.folder / "next.key").exists():
        write_root_key(installation.folder / "next.key")
    (installation.folder / "kms.yaml").write_text(f"root_keys:\n  next: {{kind: file, path: next.key}}\n{text}")
    return installation


@dataclass
class Administrator:
    """Who moves the root key."""

    installation: Installation
    channel: grpc.Channel

    def __post_init__(self) -> None:
        self.stub = root_key_pb2_grpc.RootKeyServiceStub(self.channel)

    @property
    def _call(self) -> dict[str, Any]:
        return {"metadata": self.installation.tokens.metadata("secrets", ADMINISTRATOR), "timeout": 30}

    def show(self) -> pb.GetRootKeyResponse:
        return self.stub.GetRootKey(pb.GetRootKeyRequest(), **self._call)

    def move(self, name: str) -> pb.MoveRootKeyResponse:
        return self.stub.MoveRootKey(pb.MoveRootKeyRequest(name=name), **self._call)

    def refusal(self, name: str) -> Refusal:
        return refusal(lambda: self.move(name))

    @property
    def names(self) -> list[str]:
        return [generation.name for generation in self.show().generations]


@pytest.fixture
def address(installation: Installation) -> Iterator[str]:
    with installation.serving() as address:
        yield address


@pytest.fixture
def admin(installation: Installation, address: str) -> Iterator[Administrator]:
    with grpc.insecure_channel(address) as channel:
        yield Administrator(installation, channel)


@pytest.fixture
def models(installation: Installation, address: str) -> Caller:
    return installation.caller("models", address)


def generations(installation: Installation) -> tuple[Database, RootGenerations]:
    """As a second process has them."""
    url = installation.settings.database_url.get_secret_value()
    database = Database.open(url, service="secrets", migrations=MIGRATIONS)
    source = RootKeySource(installation.root_key, installation.folder / "kms.yaml")
    return database, RootGenerations(database, source, Clock())


@everywhere
def test_a_move_keeps_every_key_and_its_generation_is_new(models: Caller, admin: Administrator) -> None:
    for number in range(10):
        models("CreateKek", kek_id=f"k{number}")
    made = {number: models.generate(f"k{number}", "c")[0] for number in range(10)}
    models("RotateKek", kek_id="k0")
    [before] = admin.show().generations
    assert (before.name, before.kind, before.generation) == ("file", "file", 1)
    done = admin.move("next")
    assert (done.name, done.generation, done.rewrapped, done.left) == ("next", 2, before.keks, 0)
    [after] = admin.show().generations
    assert (after.name, after.generation, after.keks) == ("next", 2, before.keks)
    for number, key in made.items():
        assert models.unwrap(key.key_id, "c") == key.key
        assert models.generate(f"k{number}", "more")
    again = admin.move("next")
    assert (again.generation, again.rewrapped) == (3, before.keks)


def test_after_a_move_nobody_needs_the_old_root_key(installation: Installation) -> None:
    with installation.serving() as address, grpc.insecure_channel(address) as channel:
        models = installation.caller("models", address)
        models("CreateKek", kek_id="k")
        [key] = models.generate("k", "c")
        ciphertext = models("Encrypt", kek_id="k", plaintext=b"private key", context="c").ciphertext
        installation.client(address)("CreateSecret", name="s", data={"a": "b"})
        Administrator(installation, channel).move("next")
    installation.root_key.unlink()
    with installation.serving() as address:
        models = installation.caller("models", address)
        assert models.unwrap(key.key_id, "c") == key.key
        assert models("Decrypt", ciphertext=ciphertext, context="c").plaintext == b"private key"
        assert installation.client(address).value("s") == {"a": "b"}
    # Whoever keeps the old one opens nothing of what is written from now on.
    database, opened = generations(installation)
    with closing(database):
        opened.open()
        with database.read() as connection:
            [row] = connection.execute(sa.text("SELECT wrapped, is_direct FROM root_keys")).all()
        assert not row.is_direct
    (installation.folder / "next.key").unlink()
    with pytest.raises(RootKeyError, match=r"next\.key can't be read"):
        build(installation.settings)


def test_from_a_file_to_openbao_to_aws_and_back(
    installation: Installation, transit: Transit, kms: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRONGROOM_KMS_TOKEN", transit.server.root_token)
    for name, value in aws.ANYBODY.items():
        monkeypatch.setenv(name, value)
    with installation.serving() as address, grpc.insecure_channel(address) as channel:
        models, admin = installation.caller("models", address), Administrator(installation, channel)
        models("CreateKek", kek_id="k")
        [key] = models.generate("k", "c")
        # Written while it runs: nothing is restarted.
        configured(
            installation,
            f"  vault: {{{transit.place}, key: strongroom, "
            f"token: {{environment: STRONGROOM_KMS_TOKEN}}}}\n"
            f"  aws: {{kind: aws-kms, endpoint: '{kms[0]}', key: {kms[1]}, region: {aws.REGION}}}\n",
        )
        assert list(admin.show().configured) == ["aws", "file", "next", "vault"]
        for name in ("vault", "aws", "file", "vault"):
            assert admin.move(name).left == 0
            assert admin.names == [name]
            assert models.unwrap(key.key_id, "c") == key.key
            models("CreateKek", kek_id=f"of-{name}")
    installation.root_key.unlink()
    with installation.serving() as address:
        models = installation.caller("models", address)
        assert models.unwrap(key.key_id, "c") == key.key
        assert models("CreateKek", kek_id="of-aws").version == 1


def test_a_new_installation_may_begin_in_openbao(
    tmp_path: Path, transit: Transit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRONGROOM_KMS_TOKEN", transit.server.root_token)
    installation = Installation(tmp_path)
    installation.root_key.unlink()
    (tmp_path / "kms.yaml").write_text(
        f"primary: vault\nroot_keys:\n  vault: {{{transit.place}, key: strongroom, "
        "token: {environment: STRONGROOM_KMS_TOKEN}}\n"
    )
    for _ in range(2):
        with installation.serving() as address:
            client = installation.client(address)
            client("UpdateSecret", name="s", data={"a": "b"}, allow_missing=True)
            assert client.value("s") == {"a": "b"}


@pytest.fixture
def line(transit: Transit, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokenLine]:
    """A line to OpenBao that can be cut."""
    monkeypatch.setenv("STRONGROOM_KMS_TOKEN", transit.server.root_token)
    with broken_line(transit.server.url.removeprefix("http://")) as made:
        yield made


def over(line: BrokenLine, transit: Transit) -> str:
    """The configuration of a root key at the end of a line."""
    place = transit.place.replace(transit.server.url, line.url)
    return f"  vault: {{{place}, key: strongroom, token: {{environment: STRONGROOM_KMS_TOKEN}}}}\n"


def test_while_the_system_of_the_root_key_is_away_what_runs_goes_on(
    installation: Installation, admin: Administrator, address: str, line: BrokenLine, transit: Transit
) -> None:
    configured(installation, over(line, transit))
    admin.move("vault")
    line.down = True
    client = installation.client(address)
    client("CreateSecret", name="s", data={"a": "b"})
    assert client.value("s") == {"a": "b"}
    before = admin.show()
    assert admin.refusal("vault") == (grpc.StatusCode.UNAVAILABLE, "ROOT_KEY_UNAVAILABLE")
    assert admin.show() == before
    assert admin.move("file").left == 0


def test_a_start_waits_for_the_system_of_the_root_key(
    installation: Installation, line: BrokenLine, transit: Transit
) -> None:
    configured(installation, f"{over(line, transit)}primary: vault\n")
    for first in (True, False):
        line.down = True
        server = Server(installation.build(installation.settings), installation.settings)
        server.start()
        try:
            address = f"127.0.0.1:{server.port}"
            client = installation.client(address)
            refused = (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE")
            while not first and refused[1] == "AUDIT_UNAVAILABLE":  # which starts before
                refused = client.refusal("GetSecret", name="s")
            assert first or refused == (grpc.StatusCode.UNAVAILABLE, "ROOT_KEY_UNAVAILABLE")
            line.down = False
            wait_healthy(address)
            if first:
                client("CreateSecret", name="s", data={"a": "b"})
            assert client.value("s") == {"a": "b"}
        finally:
            server.stop(grace=1)


def test_a_move_that_cannot_be_made_changes_nothing(
    installation: Installation, admin: Administrator, models: Caller
) -> None:
    models("CreateKek", kek_id="k")
    before = admin.show()
    assert admin.refusal("none") == (grpc.StatusCode.NOT_FOUND, "ROOT_KEY_UNKNOWN")
    assert admin.refusal("../file")[0] == grpc.StatusCode.INVALID_ARGUMENT
    (installation.folder / "next.key").chmod(0o644)
    assert admin.refusal("next") == (grpc.StatusCode.FAILED_PRECONDITION, "ROOT_KEY_UNUSABLE")
    (installation.folder / "kms.yaml").write_text("root_keys: [")
    assert admin.refusal("next") == (grpc.StatusCode.FAILED_PRECONDITION, "ROOT_KEY_UNUSABLE")
    configured(installation)
    assert admin.show() == before


@everywhere
def test_keys_are_made_and_opened_all_the_while(
    installation: Installation, address: str, models: Caller, admin: Administrator
) -> None:
    """And a second process, which has not heard of the move, writes nothing that is lost with the old generation."""
    with installation.serving() as other_address:
        callers = [models, installation.caller("models", other_address)]
        stop, failures, made = threading.Event(), [], []

        def work(number: int, caller: Caller) -> None:
            try:
                while not stop.is_set():
                    kek = f"m{number}-{len(made)}"
                    caller("CreateKek", kek_id=kek)
                    [key] = caller.generate(kek, "c")
                    caller("RotateKek", kek_id=kek)
                    made.append((key.key_id, key.key))
                    assert caller.unwrap(key.key_id, "c") == key.key
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=item) for item in enumerate(callers)]
        for thread in threads:
            thread.start()
        for name in ("next", "file", "next", "next", "file"):
            while admin.move(name).left:
                pass
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
        assert failures == []
        assert admin.names == ["file"]
        for key_id, key in made:
            assert [caller.unwrap(key_id, "c") for caller in callers] == [key, key]
    assert len(made) > 2


@everywhere
def test_a_move_goes_on_step_by_step_and_both_root_keys_open_meanwhile(installation: Installation) -> None:
    with installation.serving() as address:
        models = installation.caller("models", address)
        for number in range(7):
            models("CreateKek", kek_id=f"k{number}")
        made = [models.generate(f"k{number}", "c")[0] for number in range(7)]
        database, opened = generations(installation)
        with closing(database):
            opened.open()
            move = RootMove(database, opened, step=3)
            lefts = [move.move("next").left for _ in range(2)]
            assert lefts == [5, 2]
            for key in made:
                assert models.unwrap(key.key_id, "c") == key.key
            # Back before its end: it goes from both generations to a third.
            assert move.move("file").left == 5
            with installation.serving() as second:
                other = installation.caller("models", second)
                assert [other.unwrap(key.key_id, "c") for key in made] == [key.key for key in made]
            while move.move("file").left:
                pass
            assert [generation.name for generation in opened.listing()] == ["file"]
            assert [generation.number for generation in opened.listing()] == [3]
        assert [models.unwrap(key.key_id, "c") for key in made] == [key.key for key in made]


@pytest.mark.row("S2.7")
def test_a_database_of_before_opens_and_moves(tmp_path: Path) -> None:
    """Then the file wrapped key-encryption keys itself, and the database had nothing but a check of it."""
    installation = configured(Installation(tmp_path))
    old = tmp_path / "old"
    (old / "versions").mkdir(parents=True)
    for revision in sorted((MIGRATIONS / "versions").glob("000[123]_*.py")):
        shutil.copy(revision, old / "versions")
    url = installation.settings.database_url.get_secret_value()
    root = root_key_file.load(installation.root_key).key
    kek, key = envelope.new_key(), envelope.new_key()
    with closing(Database.open(url, service="secrets", migrations=old)) as database, database.write() as connection:
        check = envelope.seal(root, b"", envelope.bind("root-check", 1))
        connection.execute(sa.text("INSERT INTO root_check VALUES (:sealed)"), {"sealed": check})
        now = "2026-01-01 00:00:00.000000"
        connection.execute(sa.text(f"INSERT INTO keks VALUES ('models', 'k', 1, '{now}')"))  # noqa: S608
        connection.execute(
            sa.text(f"INSERT INTO kek_versions VALUES ('models', 'k', 1, :wrapped, '{now}', 0, '')"),  # noqa: S608
            {"wrapped": envelope.seal(root, kek, envelope.bind("kek", 1, "models", "k", 1))},
        )
        connection.execute(
            sa.text(f"INSERT INTO keys VALUES ('01A', 'models', 'k', 1, :wrapped, '{now}', 'c')"),  # noqa: S608
            {"wrapped": envelope.seal(kek, key, envelope.bind("key", 1, "models", "k", 1, "01A", "c"))},
        )
    with installation.serving() as address, grpc.insecure_channel(address) as channel:
        models, admin = installation.caller("models", address), Administrator(installation, channel)
        assert models.unwrap("01A", "c") == key
        assert admin.names == ["file"]
        models("CreateKek", kek_id="new")
        assert admin.move("next").left == 0
        assert models.unwrap("01A", "c") == key
    installation.root_key.unlink()
    with installation.serving() as address:
        assert installation.caller("models", address).unwrap("01A", "c") == key


def test_a_generation_put_in_anothers_place_opens_nothing(tmp_path: Path) -> None:
    installation = configured(Installation(tmp_path))
    other = Installation(tmp_path / "other")
    other.root_key.write_bytes(installation.root_key.read_bytes())
    for one in (installation, other):
        build(one.settings).close()
    [[wrapped]] = other.sql("SELECT hex(wrapped) FROM root_keys")
    installation.sql(f"UPDATE root_keys SET wrapped = x'{wrapped}'")  # noqa: S608
    with pytest.raises(RootKeyError, match="another root key"):
        build(installation.settings)
