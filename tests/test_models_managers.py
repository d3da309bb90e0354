"""The default manager: there from the first start, once."""

import sqlite3
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import pytest

from services.models import bootstrap
from services.models.key_client import KeyClient, KeyMissing, KeyServiceUnavailable, WrappedKey
from services.models.settings import ModelsSettings
from services.shared.channels import service_channel
from services.shared.expiring_cache import ExpiringCache
from services.shared.tokens import ServiceIdentity
from tests.models_installation import Installation, installation, refused
from tests.serving import make_identities


def counts(folder: Path) -> tuple[int, int]:
    """Managers in the models service's database, and keys under the default manager's in that of secrets."""
    with closing(sqlite3.connect(folder / "db" / "strongroom-models.db")) as models:
        [managers] = models.execute("SELECT count(*) FROM managers").fetchone()
    with closing(sqlite3.connect(folder / "db" / "strongroom-secrets.db")) as secrets:
        [keys] = secrets.execute("SELECT count(*) FROM keys").fetchone()
    return managers, keys


def test_replicas_that_start_together_agree_on_one_default_manager(tmp_path: Path) -> None:
    with installation(tmp_path) as running, ExitStack() as stack:
        assert counts(tmp_path) == (1, 1)
        with closing(sqlite3.connect(tmp_path / "db" / "strongroom-models.db", timeout=20)) as connection:
            connection.execute("DELETE FROM managers")
            connection.commit()
        lock = threading.Lock()

        def start() -> None:
            service = running.models()
            service.__enter__()
            with lock:
                stack.callback(service.__exit__, None, None, None)

        threads = [threading.Thread(target=start) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # The secret of the manager deleted above is one nobody refers to: as after a crash before the row is written.
        assert counts(tmp_path) == (1, 2)
        assert running.admin.collect().destroyed_keys == 1
        assert counts(tmp_path) == (1, 1)
        running.admin.push("v1", {"a": b"x"})
        assert running.admin.read("v1", "a") == b"x"


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with installation(tmp_path) as running:
        running.admin.push("v1", {"a": b"x"})
        before = counts(tmp_path)
        with running.models():
            assert counts(tmp_path) == before
            assert running.admin.read("v1", "a") == b"x"


def test_a_key_opens_under_its_own_context_alone_even_while_it_is_remembered(tmp_path: Path) -> None:
    with installation(tmp_path) as running:
        keys = key_client(running)
        keys.create_kek("managers/x")
        made = keys.generate("managers/x", "one")
        assert keys.unwrap(made.key_id, "one") == made.key
        with pytest.raises(KeyMissing):
            keys.unwrap(made.key_id, "another")
        assert made.key_id in set(keys.list(0))
        assert keys.destroy([made.key_id]) == 1
        with pytest.raises(KeyMissing):
            keys.unwrap(made.key_id, "one")


def key_client(running: Installation) -> KeyClient:
    identity = ServiceIdentity.load("models", running.folder / "keys")
    return KeyClient(service_channel(running.secrets_address, "secrets", identity))


def test_a_key_is_never_printed() -> None:
    assert "secret" not in repr(WrappedKey("id", b"secret"))


def test_the_cache_forgets_in_time_and_keeps_to_its_size() -> None:
    now = 0.0
    cache: ExpiringCache[str, str] = ExpiringCache(capacity=3, seconds=60, clock=lambda: now)
    cache.put("a", "A", weight=2)
    cache.put("b", "B")
    cache.put("c", "C")
    assert [cache.get(key) for key in "abc"] == [None, "B", "C"]
    cache.put("huge", "H", weight=4)
    assert cache.get("huge") is None
    now = 59.9
    assert cache.get("b") == "B"
    now = 60.0
    assert cache.get("b") is None
    assert cache.get("c") is None


def test_a_version_is_deleted_although_the_secrets_service_is_down(tmp_path: Path) -> None:
    """Its key is destroyed when collection reaches the secrets service again."""
    with installation(tmp_path) as running:
        running.admin.push("v1", {"a": b"x"})
        with running.secrets_down():
            with refused(grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"):
                running.admin.collect()
            assert running.admin.delete("v1").shredded_chunks == 1
            assert counts(tmp_path) == (1, 2)
        collected = running.admin.collect(None)
        assert collected.destroyed_keys == 1
        assert counts(tmp_path) == (1, 1)


def test_revocations_are_asked_for_while_the_secrets_service_is_waited_for(tmp_path: Path) -> None:
    """Requests come in before the start has succeeded; and a start that failed is repeated as a whole."""
    make_identities(tmp_path / "keys")
    service = bootstrap.build(
        ModelsSettings(
            data_dir=tmp_path,
            database_url=f"sqlite:///{tmp_path}/db/strongroom.db",
            identity_dir=tmp_path / "keys",
            secrets_addr="127.0.0.1:1",
            auth_addr="127.0.0.1:1",
        )
    )
    before = set(threading.enumerate())
    try:
        for _ in range(2):
            with pytest.raises(KeyServiceUnavailable):
                service.start()
        started = [thread.name for thread in set(threading.enumerate()) - before]
        assert started.count("revocations") == 1
    finally:
        service.close()
