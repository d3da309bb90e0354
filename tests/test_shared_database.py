"""The database layer: transactions, migrations, files."""

import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.shared.database import Database, UtcDateTime

MIGRATION = """
import sqlalchemy as sa
from alembic import op
from services.shared.database import UtcDateTime

revision = "0001"
down_revision = None

def upgrade() -> None:
    op.create_table("counter", sa.Column("value", sa.Integer), sa.Column("at", UtcDateTime()))
    op.execute("INSERT INTO counter (value) VALUES (0)")

def downgrade() -> None:
    op.drop_table("counter")
"""

counter = sa.table("counter", sa.column("value", sa.Integer), sa.column("at", UtcDateTime()))


@pytest.fixture
def opened(tmp_path: Path):
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "migrations" / "versions" / "0001_counter.py").write_text(MIGRATION)

    def open_database() -> Database:
        url = f"sqlite:///{tmp_path / 'db' / 'strongroom.db'}"
        return Database.open(url, service="test", migrations=tmp_path / "migrations")

    return open_database


def _value(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(sa.select(counter.c.value)).scalar_one()


def test_a_service_has_a_private_file_of_its_own(opened, tmp_path: Path) -> None:
    opened().close()
    file = tmp_path / "db" / "strongroom-test.db"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_migrations_run_once(opened) -> None:
    database = opened()
    with database.write() as connection:
        connection.execute(sa.update(counter).values(value=7))
    database.close()
    assert _value(opened()) == 7


def test_a_write_that_raises_leaves_nothing(opened) -> None:
    database = opened()

    def write_and_raise() -> None:
        with database.write() as connection:
            connection.execute(sa.update(counter).values(value=7))
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_and_raise()
    assert _value(database) == 0


def test_what_a_writer_read_stays_true_until_it_commits(opened) -> None:
    """Read, add one, write, from many threads: no increment is lost."""
    database = opened()

    def increment() -> None:
        for _ in range(20):
            with database.write() as connection:
                value = connection.execute(sa.select(counter.c.value)).scalar_one()
                connection.execute(sa.update(counter).values(value=value + 1))

    threads = [threading.Thread(target=increment) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _value(database) == 160


def test_a_reader_sees_one_moment(opened) -> None:
    database = opened()
    with database.read() as reader:
        before = reader.execute(sa.select(counter.c.value)).scalar_one()
        with database.write() as writer:
            writer.execute(sa.update(counter).values(value=5))
        assert reader.execute(sa.select(counter.c.value)).scalar_one() == before
    assert _value(database) == 5


def test_moments_keep_their_zone(opened) -> None:
    database = opened()
    moment = datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2)))
    with database.write() as connection:
        connection.execute(sa.update(counter).values(at=moment))
        assert connection.execute(sa.select(counter.c.at)).scalar_one() == moment.astimezone(UTC)
    with pytest.raises(sa.exc.StatementError, match="UTC"), database.write() as connection:
        connection.execute(sa.update(counter).values(at=datetime(2026, 1, 1)))  # noqa: DTZ001 - that is the point


def test_a_database_in_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must name a file"):
        Database.open("sqlite://", service="test", migrations=tmp_path)


def test_a_point_read_sees_what_was_just_written_and_keeps_its_connection(opened, tmp_path: Path) -> None:
    database = opened()
    wanted = sa.select(counter.c.value).where(counter.c.value == sa.bindparam("value"))
    for value in range(1, 4):
        assert database.row(wanted, {"value": value}) is None
        with database.write() as connection:
            connection.execute(sa.update(counter).values(value=value))
        assert database.row(wanted, {"value": value}) == (value,)
    assert database.engine.pool.checkedout() == 1
    database.forget_deleted()  # what is kept reads nothing meanwhile: the log can be emptied
    assert (tmp_path / "db" / "strongroom-test.db-wal").stat().st_size == 0
    with pytest.raises(sa.exc.OperationalError):
        database.row(sa.select(sa.table("none", sa.column("at")).c.at), {})
    assert database.engine.pool.checkedout() == 0
    database.close()


def test_closing_gives_back_what_point_reads_at_once_have_kept(opened) -> None:
    database = opened()
    wanted, together = sa.select(counter.c.value), threading.Barrier(20)

    def read() -> None:
        together.wait(10)
        for _ in range(20):
            assert database.row(wanted, {}) == (0,)

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool = database.engine.pool
    assert 1 <= pool.checkedout() <= 20
    database.close()
    assert pool.checkedout() == 0


def test_a_point_read_gives_what_sqlalchemy_gives(opened) -> None:
    database, kinds = opened(), sa.MetaData()
    types = {"at": UtcDateTime(), "bytes": sa.LargeBinary(), "json": sa.JSON(), "yes": sa.Boolean()}
    table = sa.Table("kinds", kinds, *(sa.Column(name, kind) for name, kind in types.items()))
    kinds.create_all(database.engine)
    now = datetime.now(UTC)
    with database.write() as connection:
        rows = [{"at": now, "bytes": b"\0", "json": {"a": [1]}, "yes": True}, dict.fromkeys(types)]
        connection.execute(sa.insert(table), rows)
    number = sa.func.coalesce(sa.func.nullif(sa.bindparam("number", type_=sa.BigInteger), 0), 7).label("number")
    for wanted in (table.c.at == sa.bindparam("at"), table.c.at.is_not(sa.bindparam("at", type_=UtcDateTime()))):
        for given in ({"at": now, "number": 0}, {"at": None, "number": 3}):
            query = sa.select(table, number).where(wanted)
            with database.read() as connection:
                expected = connection.execute(query, given).one_or_none()
            found = database.row(query, given)
            assert found == expected
            assert found is None or found._fields == expected._fields
    with pytest.raises(sa.exc.MultipleResultsFound):
        database.row(sa.select(table.c.at), {})
    database.close()
