"""A backup of a running installation, restored where there was none: secrets and weights are read again."""

import base64
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pyrage
import pytest
import sqlalchemy as sa

from services.shared import database
from strongroom import Client
from strongroom.local import backup, backup_format, restore
from strongroom.local.backup_format import Key, Lock
from strongroom.local.backup_tables import loading, migrations_of, snapshot
from strongroom.local.errors import BackupError
from tests import postgresql
from tests.stack import STRONGROOM, RunningStack, Stack, inherited

pytestmark = [pytest.mark.row("S4.6"), pytest.mark.slow]

PASSPHRASE = "correct horse battery staple"
PLANTED = "planted-4711-in-a-secret"
IDENTITY = pyrage.x25519.Identity.generate()
# A passphrase takes seconds, as it shall.
LOCK, KEY = Lock(recipients=[str(IDENTITY.to_public())]), Key(identity=str(IDENTITY))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Made:
    """A running installation that has what a backup must bring back."""

    def __init__(self, stack: Stack, url: str, folder: Path) -> None:
        self.stack = stack
        self.url = url
        self.weights = os.urandom(3_000_000)
        self.admin_key, self.folder = stack.admin_key, stack.data_dir
        (folder / "weights.bin").write_bytes(self.weights)
        with Client(stack.url, api_key=stack.admin_key, direct=False) as client:
            client.secrets.put("backup/db", {"password": PLANTED})
            client.models.push("backup", folder / "weights.bin", version="v1")
            config = client.configs.create(f"backup-{stack.data_dir.name}", {})
            trained = client.ml.train(config.id, ["x", "y"], [[1, 2], [2, 4]])
            assert client.jobs.wait(trained.job_id).status == "completed"
            predicted = client.ml.predict(trained.model_artifact_id, ["x"], [[3]])
            assert client.jobs.wait(predicted.job_id).status == "completed"
        self.prediction = predicted.prediction_artifact_id

    @property
    def environment(self) -> dict[str, str]:
        return {"STRONGROOM_DATABASE_URL": self.url} if self.url else {}

    def back_up(self, file: Path, lock: Lock = LOCK, **options: Any) -> backup.Report:
        return backup.backup(backup.Options(self.folder, file, **options), self.environment, lock, NOW, "0.1.0")

    def check(self, url: str, folder: Path) -> None:
        """Reads everything from another installation."""
        with Client(url, api_key=self.admin_key, direct=False) as client:
            assert dict(client.secrets.get("backup/db").data) == {"password": PLANTED}
            client.models.pull("backup", folder / "pulled", version="v1")
            assert client.models.verify("backup", "v1").is_valid
            [[_, made]] = client.ml.predictions(self.prediction)["data"]
            assert made == pytest.approx(6)
        assert next(
            path for path in [folder / "pulled", *(folder / "pulled").glob("*")] if path.is_file()
        ).read_bytes() == (self.weights)


# The shared Strongroom, with files, and one of its own on PostgreSQL.
everywhere = pytest.mark.parametrize("made", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="module")
def shared(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(stack, "", tmp_path_factory.mktemp("backup"))


@pytest.fixture(scope="module")
def on_postgresql(postgresql_server: postgresql.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder, url = tmp_path_factory.mktemp("backup"), postgresql_server.create_database()
    with RunningStack(folder / "data", STRONGROOM_DATABASE_URL=url) as stack:
        yield Made(stack, url, folder)


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Made:
    own = getattr(request, "param", "sqlite") == "postgresql"
    found: Made = request.getfixturevalue("on_postgresql" if own else "shared")
    return found


def opened(file: Path, key: Key = KEY) -> dict[str, bytes]:
    """What is in a backup, by name."""
    found: dict[str, bytes] = {}

    def consume(source: Any) -> None:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for entry in archive:
                content = archive.extractfile(entry)
                assert content is not None
                found[entry.name] = content.read()

    backup_format.read(file, key, consume)
    return found


def restored(file: Path, folder: Path, key: Key = KEY, url: str = "") -> Path:
    environment = {"STRONGROOM_DATABASE_URL": url} if url else {}
    restore.restore(restore.Options(folder, file), environment, key)
    return folder


@pytest.mark.row("B2")
@everywhere
def test_everything_is_read_again_from_an_empty_directory(made: Made, tmp_path: Path, request: Any) -> None:
    """The other kind of database than the one that was backed up: rows are told in a form of their own."""
    lock, key = (LOCK, KEY) if made.url else (Lock(PASSPHRASE), Key(PASSPHRASE))
    report = made.back_up(tmp_path / "backup", lock)
    assert (report.root_keys, report.has_root_key) == (("file",), True)
    assert report.weight_bytes > len(made.weights)
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
    url = "" if made.url else request.getfixturevalue("postgresql_server").create_database()
    data = restored(tmp_path / "backup", tmp_path / "data", key, url=url)
    assert not (tmp_path / ".data.restoring").exists()
    assert all(path.stat().st_mode & 0o077 == 0 for path in data.rglob("*"))
    with RunningStack(data, **({"STRONGROOM_DATABASE_URL": url} if url else {})) as stack:
        made.check(stack.url, tmp_path)
        with Client(stack.url, api_key=made.admin_key) as client:
            client.secrets.put("backup/new", {"a": "b"})
            client.admin.collect_garbage(min_age_seconds=0)
        made.check(stack.url, tmp_path)


def test_a_restoration_counts_what_the_backup_counted(shared: Made, tmp_path: Path) -> None:
    with Client(shared.stack.url, api_key=shared.admin_key) as client:
        client.models.push("counted", Path(__file__), version="v1")
        client.models.delete("counted", "v1")
        client.admin.collect_garbage()  # which marks whose index it is, in a file that is no weights
    report = shared.back_up(tmp_path / "backup")
    assert any(name.startswith("files/weights/index/") for name in opened(tmp_path / "backup"))
    options = restore.Options(tmp_path / "data", tmp_path / "backup")
    assert restore.restore(options, {}, KEY) == report


def test_a_restoration_may_take_its_time_in_postgresql(
    postgresql_server: postgresql.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services give up a transaction in which nothing happens; here gigabytes of weights come between two rows."""
    monkeypatch.setattr(database, "_IDLE", 100)
    folders = {service: migrations_of(service) / "versions" for service in ("auth", "models", "secrets")}
    newest = {service: max(file.name[:4] for file in folder.glob("[0-9]*.py")) for service, folder in folders.items()}
    url = postgresql_server.create_database()
    with loading(url) as load:
        load.prepare(newest)
        time.sleep(0.4)
        load.finish()
    with snapshot(url) as taken:
        time.sleep(0.4)
        assert taken.revisions == newest


def test_a_backup_shows_nothing_to_who_has_it_alone(made: Made, tmp_path: Path) -> None:
    made.back_up(tmp_path / "backup", weights=False)
    content = (tmp_path / "backup").read_bytes()
    root_key = (made.folder / "root.key").read_bytes().strip()
    hidden = [PLANTED.encode(), PASSPHRASE.encode(), root_key, base64.b64decode(root_key), b"weights.bin", b"backup/db"]
    assert not [word for word in hidden if word in content]
    # Not even who can open it finds the value of a secret there: it is encrypted as in the database.
    inside = b"".join(opened(tmp_path / "backup").values())
    assert PLANTED.encode() not in inside
    assert root_key in inside


def test_the_command_backs_up_to_a_recipient_and_restores(made: Made, tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "key.txt").write_text(f"# made by a test\n{identity}\n")
    environment = inherited()

    def run(*words: str, status: int = 0) -> str:
        command = [str(STRONGROOM), "admin", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    data = ["--data-dir", str(made.folder)]
    said = run("backup", "one", *data, "--recipient", str(identity.to_public()), "--no-weights", "--json")
    assert json.loads(said)["root_keys"] == ["file"]
    assert "there already" in run("backup", "one", *data, "--recipient", str(identity.to_public()), status=1)
    assert "say to what" in run("backup", "two", *data, status=2)
    restoring = ["--identity-file", "key.txt", "--data-dir", "new"]
    assert "restored: the databases and" in run("restore", "one", *restoring)
    assert "not empty" in run("restore", "one", *restoring, status=1)
    (tmp_path / "pass").write_text(PASSPHRASE)
    refused = run("restore", "one", "--passphrase-file", "pass", "--data-dir", "other", status=1)
    assert "encrypted to a recipient" in refused
    assert str(identity) not in said + refused


def test_without_the_root_key_a_backup_opens_only_with_it(made: Made, tmp_path: Path) -> None:
    report = made.back_up(tmp_path / "backup", root_key=False, weights=False)
    assert (report.has_root_key, report.weights) == (False, 0)
    inside = opened(tmp_path / "backup")
    assert (made.folder / "root.key").read_bytes().strip() not in b"".join(inside.values())
    assert not [name for name in inside if "weights" in name]


@pytest.fixture(scope="module")
def to_passphrase(shared: Made, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A backup without weights."""
    file = tmp_path_factory.mktemp("sealed") / "backup"
    shared.back_up(file, Lock(PASSPHRASE), weights=False)
    return file.read_bytes()


@pytest.fixture(scope="module")
def to_recipient(shared: Made, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A backup with weights: of several pieces."""
    file = tmp_path_factory.mktemp("sealed") / "backup"
    shared.back_up(file)
    return file.read_bytes()


@pytest.mark.parametrize("change", ["byte", "head", "magic", "passphrase"])
def test_a_changed_file_or_a_wrong_passphrase_restores_nothing(
    to_passphrase: bytes, tmp_path: Path, change: str
) -> None:
    content, key = bytearray(to_passphrase), Key(PASSPHRASE)
    match change:
        case "byte":
            content[len(content) // 2] ^= 1
        case "head":
            content[100] ^= 1
        case "magic":
            content[:10] = b"0123456789"
        case "passphrase":
            key = Key(PASSPHRASE + "!")
    _assert_restores_nothing(tmp_path, bytes(content), key)


@pytest.mark.parametrize("change", ["byte", "cut", "piece", "more"])
def test_a_file_that_was_changed_or_cut_off_restores_nothing(to_recipient: bytes, tmp_path: Path, change: str) -> None:
    """Behind its head a backup is the same, whatever it is encrypted to."""
    content = bytearray(to_recipient)
    match change:
        case "byte":
            content[len(content) // 2] ^= 1
        case "cut":
            del content[-1:]
        case "piece":  # and all behind it: every piece that is left is in order, and whole
            header = content.index(b"age-encryption.org/v1")
            payload = content.index(b"\n", content.index(b"\n--- ", header) + 1) + 1 + 16
            assert len(content) > payload + 65536 + 16
            del content[payload + 65536 + 16 :]
        case "more":
            content += b"x"
    _assert_restores_nothing(tmp_path, bytes(content), KEY)


def _assert_restores_nothing(folder: Path, content: bytes, key: Key) -> None:
    file = folder / "backup"
    file.write_bytes(content)
    with pytest.raises(BackupError) as caught:
        restored(file, folder / "data", key)
    assert PASSPHRASE not in str(caught.value)
    assert not [path for path in folder.rglob("*") if path != file]


@pytest.fixture(scope="module")
def manifest(to_recipient: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """That of a real backup."""
    file = tmp_path_factory.mktemp("manifest") / "backup"
    file.write_bytes(to_recipient)
    return opened(file)["manifest.json"]


def _forged(file: Path, entries: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> None:
    """Whoever has the public key of a recipient can make this."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w|") as tar:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            if name != "manifest.json":
                entry.type, entry.linkname = kind, "/etc/passwd"
            entry.size = len(content) if entry.isreg() else 0
            tar.addfile(entry, BytesIO(content))
    sealed = BytesIO()
    LOCK.seal(BytesIO(archive.getvalue()), sealed)
    file.write_bytes(sealed.getvalue())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("files/../../outside", tarfile.REGTYPE),
        ("/etc/outside", tarfile.REGTYPE),
        ("files/weights/../../../outside", tarfile.REGTYPE),
        ("files/db/strongroom-auth.db", tarfile.REGTYPE),
        ("files/.hidden", tarfile.REGTYPE),
        ("files/keys/link", tarfile.SYMTYPE),
        ("files/keys/link", tarfile.LNKTYPE),
        ("files/keys/pipe", tarfile.FIFOTYPE),
        ("tables/auth/no_such_table/1", tarfile.REGTYPE),
        ("tables/other/users/1", tarfile.REGTYPE),
        ("tables/auth", tarfile.REGTYPE),
        ("anything/else", tarfile.REGTYPE),
    ],
)
def test_a_forged_backup_writes_nothing_elsewhere(manifest: bytes, tmp_path: Path, name: str, kind: bytes) -> None:
    _forged(tmp_path / "backup", {"manifest.json": manifest, name: b'["a"]\n[1]'}, kind)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(BackupError):
        restored(tmp_path / "backup", tmp_path / "data")
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("revision", ["9999", "0000", "00", "heads"])
def test_a_backup_of_a_later_version_is_refused(tmp_path: Path, revision: str) -> None:
    revisions = dict.fromkeys(("auth", "models", "secrets"), revision)
    manifest = json.dumps({"format": 1, "revisions": revisions, "root_keys": ["file"]}).encode()
    _forged(tmp_path / "backup", {"manifest.json": manifest})
    with pytest.raises(BackupError, match="later version"):
        restored(tmp_path / "backup", tmp_path / "data")


@everywhere
def test_a_database_that_is_not_empty_is_left_alone(made: Made, tmp_path: Path) -> None:
    made.back_up(tmp_path / "backup", weights=False)
    url = made.url or f"sqlite:///{made.folder / 'db' / 'strongroom.db'}"
    with pytest.raises(BackupError, match=r"not empty|there already"):
        restored(tmp_path / "backup", tmp_path / "data", url=url)
    assert not (tmp_path / "data").exists()
    made.check(made.stack.url, tmp_path)


def test_a_short_passphrase_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="12 characters"):
        made.back_up(tmp_path / "backup", Lock("short"))
    assert not list(tmp_path.iterdir())


@everywhere
def test_every_row_of_every_table_is_in_it(made: Made, tmp_path: Path) -> None:
    """By counts, and for one table by content."""
    made.back_up(tmp_path / "backup", weights=False)
    data = restored(tmp_path / "backup", tmp_path / "data")
    inside = opened(tmp_path / "backup")
    for service in ("auth", "models", "secrets"):
        engine = sa.create_engine(f"sqlite:///{data / 'db' / f'strongroom-{service}.db'}")
        with engine.connect() as connection:
            for table in sa.inspect(connection).get_table_names():
                if table == "alembic_version":
                    continue
                count = connection.execute(sa.text(f'SELECT count(*) FROM "{table}"')).scalar()  # noqa: S608
                lines = [len(text.splitlines()) - 1 for name, text in inside.items() if f"/{service}/{table}/" in name]
                assert count == sum(lines), table
        engine.dispose()
