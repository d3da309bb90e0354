"""Configs: what is trained, and how."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.models import ml_tables as m
from services.models.jobs.runner_catalog import ConfigInvalid, RunnerCatalog
from services.shared.database import Database
from services.shared.errors import AlreadyExists, NotFound

_MAX_BYTES = 64 << 10
_PAGE = 100


class ConfigNotFound(NotFound):
    """There is no config of that id."""

    reason = "CONFIG_NOT_FOUND"


class ConfigExists(AlreadyExists):
    """There is a config of that id."""

    reason = "CONFIG_EXISTS"


@dataclass(frozen=True)
class Config:
    """A config; `data` is what its runner's schema allows."""

    id: str
    name: str
    data: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime


class Configs:
    """Keeps configs."""

    def __init__(
        self, database: Database, runners: RunnerCatalog, clock: Callable[[], datetime], new_id: Callable[[], str]
    ) -> None:
        self._database = database
        self._runners = runners
        self._clock = clock
        self._new_id = new_id

    def create(self, config_id: str, name: str, data: Mapping[str, Any], by: str) -> Config:
        """Adds a config. Raises ConfigInvalid, RunnerNotFound, ConfigExists."""
        text = self._checked(data)
        now = self._clock()
        row = {"id": config_id or self._new_id(), "name": name, "data": text, "created_by": by}
        try:
            with self._database.write() as connection:
                connection.execute(sa.insert(m.configs).values(row | {"created_at": now, "updated_at": now}))
        except sa.exc.IntegrityError:
            message = f"There is a config '{config_id}' already: take another id, or replace it by PUT."
            raise ConfigExists(message, config=config_id) from None
        return self.get(row["id"])

    def get(self, config_id: str) -> Config:
        """Raises ConfigNotFound."""
        with self._database.read() as connection:
            row = connection.execute(_SELECT.where(m.configs.c.id == config_id)).one_or_none()
        if row is None:
            raise _missing(config_id)
        return _config(row)

    def update(self, config_id: str, name: str, data: Mapping[str, Any]) -> Config:
        """Replaces name and data. Raises ConfigInvalid, RunnerNotFound, ConfigNotFound."""
        values = {"name": name, "data": self._checked(data), "updated_at": self._clock()}
        this = m.configs.c.id == config_id
        with self._database.write() as connection:
            changed = connection.execute(sa.update(m.configs).where(this).values(values))
            if not changed.rowcount:
                raise _missing(config_id)
            return _config(connection.execute(_SELECT.where(this)).one())

    def delete(self, config_id: str) -> None:
        """Raises ConfigNotFound."""
        with self._database.write() as connection:
            gone = connection.execute(sa.delete(m.configs).where(m.configs.c.id == config_id))
        if not gone.rowcount:
            raise _missing(config_id)

    def list(self, page_size: int, page_token: str, visible: Callable[[str], bool]) -> tuple[list[Config], str]:
        """A page of configs by id, of those that are `visible`, and the token of the next. It may hold fewer."""
        size = page_size or _PAGE
        query = _SELECT.where(m.configs.c.id > page_token).order_by(m.configs.c.id).limit(size)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        token = rows[-1].id if len(rows) == size else ""
        return [_config(row) for row in rows if visible(row.id)], token

    def _checked(self, data: Mapping[str, Any]) -> str:
        text = json.dumps(data, separators=(",", ":"))
        if len(text.encode()) > _MAX_BYTES:
            raise ConfigInvalid(f"A config's data has at most {_MAX_BYTES} bytes as JSON.", path="data")
        self._runners.check(data)
        return text


_c = m.configs.c
_SELECT = sa.select(_c.id, _c.name, _c.data, _c.created_at, _c.updated_at)


def _config(row: Any) -> Config:
    return Config(row.id, row.name, json.loads(row.data), row.created_at, row.updated_at)


def _missing(config_id: str) -> ConfigNotFound:
    return ConfigNotFound(f"There is no config '{config_id}'.", config=config_id)
