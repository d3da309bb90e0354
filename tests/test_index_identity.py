"""Which index is the stores': one, however many replicas start together."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.models import tables as t
from services.models.index_identity import IndexIdentity
from services.models.stores.local import LocalStore
from services.shared.database import Database
from tests.postgresql import Server

_MIGRATIONS = Path(__file__).parents[1] / "services" / "models" / "migrations"
_WAITING = sa.text("SELECT count(*) FROM pg_locks WHERE relation = 'index_identity'::regclass AND NOT granted")


@pytest.mark.row("S4.5")
def test_replicas_that_start_together_make_one_identity(postgresql_server: Server, tmp_path: Path) -> None:
    url = postgresql_server.create_database()
    with closing(Database.open(url, service="models", migrations=_MIGRATIONS)) as database:
        replicas = [IndexIdentity(database, LocalStore(tmp_path / "store")) for _ in range(2)]
        with ThreadPoolExecutor(len(replicas)) as threads:
            with database.write() as connection:
                connection.execute(sa.text("LOCK TABLE index_identity IN SHARE MODE"))
                starting = [threads.submit(replica.ensure) for replica in replicas]
                # Both have seen that there is none, and are about to write theirs.
                deadline = time.monotonic() + 30
                while connection.scalar(_WAITING) != len(replicas):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            for each in starting:
                each.result()
        with database.read() as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(t.index_identity)) == 1
        for replica in replicas:
            replica.prove()
