"""Queries for one row that SQLite answers in less time than SQLAlchemy takes to ask (9 µs of 67)."""

import sqlite3
from collections import deque, namedtuple
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.pool import PoolProxiedConnection

# Connections that are kept: far fewer than a pool has, so that nobody waits for one of these.
_KEPT = 8
# Statements whose text is kept; each is written once, in a module.
_STATEMENTS = 64

# Of names that are known only when it runs, which mypy does not take.
_named: Any = namedtuple


class _Statement:
    """A query as the driver takes it: compiled once, with the conversions of its types."""

    def __init__(self, statement: sa.Select[Any], dialect: sa.Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        binds = [(name, compiled.binds[name]) for name in compiled.positiontup]
        self._given = [
            (name, bind.required, bind.effective_value, _on(bind.type, dialect).bind_processor(dialect) or _as_it_is)
            for name, bind in binds
        ]
        columns = statement.selected_columns
        self._row = _named("Row", [str(column.key) for column in columns])
        found = [_on(column.type, dialect).result_processor(dialect, None) for column in columns]
        self._converted = [(place, convert) for place, convert in enumerate(found) if convert]

    def arguments(self, parameters: Mapping[str, Any]) -> list[Any]:
        return [
            convert(parameters[name] if is_required else value) for name, is_required, value, convert in self._given
        ]

    def row(self, values: tuple[Any, ...]) -> Any:
        row = list(values)
        for place, convert in self._converted:
            row[place] = convert(row[place])
        return self._row._make(row)


class PointReads:
    """Runs queries on the driver's own cursor, on connections kept for it: to take one from the pool and to give it
    back costs as much as the read. A file does not go away as a server does.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: deque[PoolProxiedConnection] = deque()
        self._statement = lru_cache(maxsize=_STATEMENTS)(lambda statement: _Statement(statement, engine.dialect))

    def rows(self, statement: sa.Select[Any], parameters: Mapping[str, Any]) -> list[Any]:
        """What the query finds. Raises sqlite3.Error."""
        ready = self._statement(statement)
        try:
            connection = self._kept.pop()
        except IndexError:
            connection = self._engine.raw_connection()
        try:
            driver: Any = connection.driver_connection
            # All of it, which ends the statement and so the view of the database that it has.
            rows = driver.execute(ready.sql, ready.arguments(parameters)).fetchall()
        except sqlite3.Error:
            connection.close()
            raise
        if len(self._kept) < _KEPT:
            self._kept.append(connection)
        else:
            connection.close()
        return [ready.row(row) for row in rows]

    def close(self) -> None:
        while self._kept:
            self._kept.pop().close()


def _on(kind: Any, dialect: sa.Dialect) -> Any:
    return kind.dialect_impl(dialect)


def _as_it_is(value: Any) -> Any:
    return value
