"""The tables of the services as lines of JSON: the same for SQLite and PostgreSQL, so one restores to the other.

A piece of a table is a line with the names of its columns, and a line with the values of each row in that order. Bytes
are {"b": base64}, moments {"t": ISO 8601 in UTC}, lists and objects {"j": …}; everything else is itself.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, make_url

from services.shared.database import Database, migrate, schema_revision, sqlite_file
from strongroom.local.errors import BackupError

# Rows of a piece, which is held in memory.
_ROWS = 5_000
_REVISION_TABLE = "alembic_version"
# Whoever refers to something stands before it: what a row of models refers to is then there in a later view of secrets.
ORDER = ("models", "auth", "secrets")
_SERVICES_FOLDER = Path(__file__).resolve().parents[2] / "services"

Row = tuple[Any, ...]


def migrations_of(service: str) -> Path:
    """The folder of a service's migrations."""
    return _SERVICES_FOLDER / service / "migrations"


class Snapshot:
    """The databases of all services as they were at one moment."""

    def __init__(self, connections: Mapping[str, Connection]) -> None:
        self._connections = connections
        self.revisions = {name: schema_revision(connection) or "" for name, connection in connections.items()}

    def root_keys(self) -> list[str]:
        """The names of the root keys that wrap the keys in it. Raises BackupError."""
        try:
            names = self._connections["secrets"].execute(sa.text("SELECT DISTINCT name FROM root_keys"))
            return sorted(names.scalars())
        except sa.exc.DatabaseError:
            raise BackupError("The database is of an earlier version: start Strongroom once, then repeat.") from None

    def pieces(self, service: str) -> Iterator[tuple[str, bytes]]:
        """The tables of a service, in pieces: the table's name and lines. Ends the view of that service."""
        connection = self._connections[service]
        for table in _tables(connection):
            columns = [column.name for column in table.columns]
            rows = connection.execution_options(yield_per=_ROWS).execute(sa.select(table))
            for part in rows.partitions(_ROWS):
                yield table.name, _lines(columns, part)
        # SQLite's log grows as long as somebody looks at what was.
        connection.close()


@contextmanager
def snapshot(url: str) -> Iterator[Snapshot]:
    """What the databases hold now, while they are in use. Raises BackupError."""
    with ExitStack() as stack:
        connections = {}
        for service in ORDER:
            _must_exist(url, service)
            database = Database.connect(url, service=service, pool_size=1)
            stack.callback(database.close)
            connections[service] = _patient(stack.enter_context(database.read()))
        # Each view begins with the first look at it, one right after the other.
        taken = Snapshot(connections)
        if missing := [service for service, revision in taken.revisions.items() if not revision]:
            raise BackupError(f"There is nothing of {', '.join(missing)} in the database: has Strongroom run on it?")
        yield taken


class Loading:
    """Empty databases that are filled, each in one transaction; nothing of it is there before `load` ends well."""

    def __init__(self, connections: Mapping[str, Connection]) -> None:
        self._connections = connections
        self._tables: dict[str, dict[str, sa.Table]] = {}

    def prepare(self, revisions: Mapping[str, Any]) -> None:
        """Makes the schemas as they were when the backup was made. Raises BackupError."""
        for service, connection in self._connections.items():
            revision, versions = str(revisions.get(service, "")), migrations_of(service) / "versions"
            if not revision.isalnum() or not any(versions.glob(f"{revision}_*.py")):
                raise BackupError(f"It was made by a later version of Strongroom ({service} {revision[:32]}): update.")
            if sa.inspect(connection).get_table_names():
                raise BackupError(f"The database of {service} is not empty: restore into an empty one.")
            migrate(connection, migrations_of(service), service, revision)
            tables = _tables(connection)
            _defer_foreign_keys(connection, tables)
            for table in reversed(tables):  # what a migration put into them is in the backup too
                connection.execute(sa.delete(table))
            self._tables[service] = {table.name: table for table in tables}

    def add(self, service: str, name: str, lines: bytes) -> int:
        """Adds a piece of a table; how many rows. Raises BackupError."""
        table = self._tables.get(service, {}).get(name)
        if table is None:
            raise BackupError(f"It has a table that this version does not know: {service} {name}"[:200])
        try:
            columns, *rows = [json.loads(line) for line in lines.splitlines()]
            values = [dict(zip(columns, map(_decoded, row), strict=True)) for row in rows]
            values = [{name: _fitting(table.c[name], value) for name, value in row.items()} for row in values]
            self._connections[service].execute(sa.insert(table), values)
        except (ValueError, KeyError, TypeError, AttributeError, sa.exc.SQLAlchemyError) as error:
            raise BackupError(f"The table {name} of {service} can't be restored ({type(error).__name__}).") from None
        return len(rows)

    def finish(self) -> None:
        """Checks what rows say of each other. Raises BackupError."""
        for service, connection in self._connections.items():
            try:
                _check_foreign_keys(connection, list(self._tables[service].values()))
            except (sa.exc.IntegrityError, KeyError):
                raise BackupError(f"Rows of {service} refer to some that are not there.") from None


@contextmanager
def loading(url: str) -> Iterator[Loading]:
    """Fills empty databases: all of it is committed when the block ends, or nothing if it raises."""
    with ExitStack() as stack:
        connections = {}
        for service in ORDER:
            database = Database.connect(url, service=service, pool_size=1)
            stack.callback(database.close)
            connections[service] = _patient(stack.enter_context(database.write()))
        yield Loading(connections)


def _patient(connection: Connection) -> Connection:
    """Lets its transaction wait: between two tables come those of other services, and gigabytes of weights."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
    return connection


def _must_exist(url: str, service: str) -> None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not sqlite_file(parsed, service).exists():
        raise BackupError(f"There is no database {sqlite_file(parsed, service)}: name the right data directory.")


def _tables(connection: Connection) -> Sequence[sa.Table]:
    """All tables but that of the revision; those that others refer to first."""
    metadata = sa.MetaData()
    metadata.reflect(connection)
    for column in (column for table in metadata.tables.values() for column in table.columns):
        if isinstance(column.type, sa.JSON):
            column.type = type(column.type)(none_as_null=True)
    return [table for table in metadata.sorted_tables if table.name != _REVISION_TABLE]


def _lines(columns: Sequence[str], rows: Sequence[Any]) -> bytes:
    lines = [json.dumps(columns)]
    lines += [json.dumps([_encoded(value) for value in row], separators=(",", ":")) for row in rows]
    return "\n".join(lines).encode()


def _encoded(value: Any) -> Any:
    match value:
        case bytes() | memoryview():
            return {"b": base64.b64encode(value).decode()}
        case datetime():
            moment = value if value.tzinfo else value.replace(tzinfo=UTC)
            return {"t": moment.astimezone(UTC).isoformat()}
        case list() | dict():
            return {"j": value}
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise TypeError(f"no form for a {type(value).__name__}")


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        [(kind, content)] = value.items()
        return _FORMS[kind](content)
    return value


_FORMS: dict[str, Callable[[Any], Any]] = {
    "b": lambda text: base64.b64decode(text, validate=True),
    "t": datetime.fromisoformat,
    "j": lambda value: value,
}


def _fitting(column: sa.Column[Any], value: Any) -> Any:
    """As the column's type here wants it: SQLite's moments have no zone, PostgreSQL's booleans are no numbers."""
    if isinstance(value, datetime) and not getattr(column.type, "timezone", False):
        return value.replace(tzinfo=None)
    if isinstance(column.type, sa.Boolean) and value is not None:
        return bool(value)
    return value


def _defer_foreign_keys(connection: Connection, tables: Sequence[sa.Table]) -> None:
    """Rows may come before those they refer to, until `_check_foreign_keys`."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    else:
        _alter_foreign_keys(connection, tables, "DEFERRABLE INITIALLY DEFERRED")


def _check_foreign_keys(connection: Connection, tables: Sequence[sa.Table]) -> None:
    """Raises IntegrityError; SQLite checks when it commits, too late to tell which."""
    if connection.dialect.name == "sqlite":
        if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
            raise KeyError
    else:
        connection.execute(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))
        _alter_foreign_keys(connection, tables, "NOT DEFERRABLE")


def _alter_foreign_keys(connection: Connection, tables: Sequence[sa.Table], how: str) -> None:
    quote = connection.dialect.identifier_preparer.quote
    for table in tables:
        for constraint in table.foreign_key_constraints:
            name = quote(str(constraint.name))
            connection.execute(sa.text(f"ALTER TABLE {quote(table.name)} ALTER CONSTRAINT {name} {how}"))
