"""The database of a service: SQLite in a file of its own, or a schema of its own on PostgreSQL.

SQLAlchemy Core, synchronous: measured on two cores with one point read a request, a connection used in line answers
three times as many calls as aiosqlite, and Core half as many again as the ORM.
"""

import sqlite3
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import tenacity
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.pool import QueuePool

from services.shared.point_reads import PointReads

_WRITE = "strongroom_write"
_SINGLE = "strongroom_single"

# Milliseconds that a statement on SQLite waits for locks of others.
_BUSY = 30_000
# Milliseconds after which PostgreSQL ends a transaction in which nothing happens: a replica that stands still or is cut
# off gives up its locks.
_IDLE = 5_000
# Seconds, and milliseconds where it says user: a server that is gone without a word is noticed.
_POSTGRESQL = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# A checkpoint keeps all writers waiting while it waits for readers.
_CHECKPOINT_BUSY = 200


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A moment in UTC. SQLite keeps no zone, so it is put back on the way out."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("moments are stored in UTC: give the datetime a time zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Database:
    """An engine whose transactions say whether they write."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._single = engine.execution_options(**{_SINGLE: True})
        self._points = PointReads(engine) if engine.dialect.name == "sqlite" else None
        self._forgetting = threading.Lock()
        self._deleted_in_log = False

    @classmethod
    def open(cls, url: str, *, service: str, migrations: Path, pool_size: int = 48) -> "Database":
        """Opens the service's database and brings its schema up to date.

        Args:
            url: `sqlite:///FILE` or `postgresql://…`.
            service: names the file (`FILE` with `-<service>` before its suffix) or the schema.
            migrations: the folder with `versions/`.
            pool_size: connections at most; above the number of request threads, so none waits for another.
        """
        database = cls.connect(url, service=service, pool_size=pool_size)
        with database.write() as connection:
            migrate(connection, migrations, service)
        database.forget_deleted()  # whoever was killed between deleting and forgetting left it to us
        return database

    @classmethod
    def connect(cls, url: str, *, service: str, pool_size: int = 48) -> "Database":
        """As `open`, with the schema as it is."""
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return cls(_sqlite(parsed, service, pool_size))
        return cls(_postgresql(parsed, service, pool_size))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of the database; nothing may be written."""
        # PostgreSQL's default sees what others commit between two statements.
        snapshot = {"isolation_level": "REPEATABLE READ"} if self.engine.dialect.name == "postgresql" else {}
        with self.engine.connect().execution_options(**snapshot) as connection:
            yield connection

    def row(self, statement: sa.Select[Any], parameters: Mapping[str, Any]) -> Any:
        """The one row that a query finds, or None: what is asked at every request, without a transaction around it.

        One statement has one view of the database by itself. Beginning and ending a transaction on SQLite costs as
        much as the rest of a point read (104 µs against 56).
        """
        if self._points is not None:
            # What goes wrong is asked again below, where errors have their kinds.
            with suppress(sqlite3.Error):
                rows = self._points.rows(statement, parameters)
                if len(rows) < 2:
                    return rows[0] if rows else None
        with self._single.connect() as connection:
            return connection.execute(statement, parameters).one_or_none()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: all of it at the end, or nothing if the block raises.

        On SQLite it holds the write lock from its start (`BEGIN IMMEDIATE`): what it read stays true until it commits.
        On PostgreSQL rows that a decision rests on are locked by `SELECT … FOR UPDATE`.
        """
        with self.engine.connect().execution_options(**{_WRITE: True}) as connection, connection.begin():
            yield connection

    def check(self) -> None:
        """Raises if the database does not answer."""
        with self.read() as connection:
            connection.execute(sa.text("SELECT 1"))
        if self._deleted_in_log:
            self.forget_deleted()

    def forget_deleted(self) -> None:
        """After a transaction that deleted keys: empties SQLite's write-ahead log, where the rows still stand.

        `secure_delete` overwrites them in the database itself. If readers hold the log, `check` tries again.
        """
        if self.engine.dialect.name == "sqlite":
            with self._forgetting, self.engine.connect() as connection:
                raw = connection.connection.driver_connection
                assert raw is not None
                raw.execute(f"PRAGMA busy_timeout={_CHECKPOINT_BUSY}")
                try:
                    [busy, *_] = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                finally:
                    raw.execute(f"PRAGMA busy_timeout={_BUSY}")
                self._deleted_in_log = bool(busy)

    def close(self) -> None:
        if self._points is not None:
            self._points.close()
        self.engine.dispose()


def sqlite_file(url: URL, service: str) -> Path:
    """The file of a service's own. Raises ValueError for a URL that names none."""
    if not url.database or url.database == ":memory:":
        raise ValueError(
            "STRONGROOM_DATABASE_URL must name a file, such as sqlite:////var/lib/strongroom/strongroom.db"
        )
    file = Path(url.database)
    return file.with_name(f"{file.stem}-{service}{file.suffix or '.db'}")


def migrate(connection: Connection, migrations: Path, service: str, revision: str = "head") -> None:
    """Brings the service's schema to a revision, the newest unless one is named, in the caller's transaction."""
    versions = migrations / "versions"
    if connection.dialect.name == "postgresql":
        # Two replicas that start together migrate one after the other.
        lock = sa.text("SELECT pg_advisory_xact_lock(hashtext(:name))")
        connection.execute(lock, {"name": f"strongroom-{service}"})
        connection.execute(sa.text(f'CREATE SCHEMA IF NOT EXISTS "{service}"'))
    if schema_revision(connection) != (newest_revision(migrations) if revision == "head" else revision):
        _upgrade(connection, versions, revision)


def newest_revision(migrations: Path) -> str:
    """The revision of the last migration: their files are named `<revision>_<what it does>.py`, in order."""
    return max(file.name for file in (migrations / "versions").glob("[0-9]*_*.py")).partition("_")[0]


def schema_revision(connection: Connection) -> str | None:
    """The revision the schema is at; None for a new database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection, versions: Path, revision: str) -> None:
    # Imported where it is needed: it takes a third of a second, and most starts find the schema up to date.
    from alembic import command
    from alembic.config import Config

    config = Config()
    for option, folder in {"script_location": Path(__file__).parent / "alembic", "version_locations": versions}.items():
        config.set_main_option(option, str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _sqlite(url: URL, service: str, pool_size: int) -> Engine:
    file = sqlite_file(url, service)
    file.parent.mkdir(parents=True, exist_ok=True, mode=stat.S_IRWXU)
    # Created 0600 before SQLite opens it; its WAL and shared memory take over the mode.
    file.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
    engine = sa.create_engine(
        url.set(drivername="sqlite+pysqlite", database=str(file)),
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=pool_size,
        hide_parameters=True,  # in errors, which are logged
        # We begin transactions ourselves, see below; a connection wanders between threads but is used by one at a time.
        connect_args={"isolation_level": None, "check_same_thread": False, "timeout": _BUSY / 1000},
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        _log_ahead(connection)
        for pragma in (
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that starts as a reader and then writes can fail with SQLITE_BUSY at once, whatever the timeout
        # (https://www.sqlite.org/lang_transaction.html): writers take the lock first.
        options = connection.get_execution_options()
        if not options.get(_SINGLE):
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_WRITE) else "BEGIN")

    return engine


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(sqlite3.OperationalError),
    wait=tenacity.wait_random(0.01, 0.1),
    stop=tenacity.stop_after_delay(_BUSY / 1000),
    reraise=True,
)
def _log_ahead(connection: sqlite3.Connection) -> None:
    """Turns the write-ahead log on. Of two that do so to a new file, one is told at once that it is locked, whatever
    the timeout (https://www.sqlite.org/c3ref/busy_handler.html).
    """
    connection.execute("PRAGMA journal_mode=WAL")


def _postgresql(url: URL, service: str, pool_size: int) -> Engine:
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args=_POSTGRESQL
        | {"options": f"-csearch_path={service} -ctimezone=UTC -cidle_in_transaction_session_timeout={_IDLE}"},
    )
