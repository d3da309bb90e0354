"""Managers as users see them: how they are configured, what they hold, which model is the best."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from services.models import manager_paths
from services.models import tables as t
from services.models.managers import Managers, missing
from services.models.metrics import best_models
from services.shared.database import Database

_PAGE = 100
# Rows read at once while looking for those that the caller may see.
_MOST_ROWS = 1000


@dataclass(frozen=True)
class ManagerConfig:
    """How a manager is configured; the fields are columns of its row."""

    task_type: str
    model_path: str = "./models"
    enable_encryption: bool = True
    key_iterations: int = 200_000
    hash_algorithm: str = "sha512"
    use_scrypt: bool = True
    enable_quantization: bool = False
    primary_metric: str = ""


@dataclass(frozen=True)
class ManagerRecord:
    """A manager in a listing. `best_model` is empty if there is none."""

    id: str
    created_at: datetime
    config: ManagerConfig
    models_count: int
    best_model: str


class ManagerCatalog:
    """Creates and lists managers.

    Args:
        new_id: makes up the id of a manager that is given none.
    """

    def __init__(
        self, database: Database, managers: Managers, new_id: Callable[[], str] = lambda: str(uuid4())
    ) -> None:
        self._database = database
        self._managers = managers
        self._new_id = new_id

    def create(self, manager_id: str, config: ManagerConfig) -> str:
        """Creates a manager with keys of its own, and returns its id. Raises ManagerExists, PathInvalid."""
        manager_paths.check_root(config.model_path)
        return self._managers.create(manager_id or self._new_id(), **asdict(config)).id

    def config(self, manager_id: str) -> ManagerConfig:
        """Raises ManagerNotFound."""
        with self._database.read() as connection:
            row = connection.execute(_CONFIG, {"id": manager_id}).mappings().one_or_none()
        if row is None:
            raise missing(manager_id)
        return ManagerConfig(**row)

    def get(self, manager_id: str, may_read: Callable[[str, str], bool]) -> ManagerRecord:
        """A manager; `may_read` says of manager and model whether the caller may know of it. Raises ManagerNotFound."""
        with self._database.read() as connection:
            rows = connection.execute(_records().where(t.managers.c.id == manager_id)).mappings().all()
            found = _complete(connection, rows, may_read)
        if not found:
            raise missing(manager_id)
        return found[0]

    def list(
        self,
        page_size: int,
        page_token: str,
        visible: Callable[[str], bool],
        may_read: Callable[[str, str], bool],
    ) -> tuple[list[ManagerRecord], str]:
        """A page of the managers whose id is `visible`, by id, and the token of the next."""
        size = page_size or _PAGE
        page: list[sa.RowMapping] = []
        after: str | None = page_token
        with self._database.read() as connection:
            while after is not None and len(page) <= size:
                query = _records().where(t.managers.c.id > after).order_by(t.managers.c.id).limit(_MOST_ROWS)
                rows = connection.execute(query).mappings().all()
                page += [row for row in rows if visible(row["id"])]
                after = rows[-1]["id"] if len(rows) == _MOST_ROWS else None
            records = _complete(connection, page[:size], may_read)
        return records, records[-1].id if len(page) > size else ""

    def count(self) -> tuple[int, int]:
        """How many managers there are, and models in all of them."""
        count = sa.select(sa.func.count())
        with self._database.read() as connection:
            managers, models = (
                connection.execute(count.select_from(table)).scalar_one() for table in (t.managers, t.models)
            )
        return managers, models

    def best_model(self, manager_id: str, visible: Callable[[str], bool]) -> str:
        """The best of the models that are visible by the manager's primary metric; empty if there is none."""
        config = self.config(manager_id)
        with self._database.read() as connection:
            best = best_models(connection, {manager_id: config.primary_metric}, lambda _id, name: visible(name))
        return best.get(manager_id, "")


def _columns() -> list[sa.Column[Any]]:
    return [t.managers.c[field.name] for field in fields(ManagerConfig)]


_CONFIG = sa.select(*_columns()).where(t.managers.c.id == sa.bindparam("id"))


def _records() -> sa.Select[Any]:
    models = sa.select(sa.func.count()).where(t.models.c.manager_id == t.managers.c.id).scalar_subquery()
    return sa.select(t.managers.c.id, t.managers.c.created_at, models.label("models_count"), *_columns())


def _complete(
    connection: sa.Connection, rows: Iterable[sa.RowMapping], may_read: Callable[[str, str], bool]
) -> list[ManagerRecord]:
    rows = list(rows)
    best = best_models(connection, {row["id"]: row["primary_metric"] for row in rows}, may_read)
    return [
        ManagerRecord(
            row["id"],
            row["created_at"],
            ManagerConfig(**{field.name: row[field.name] for field in fields(ManagerConfig)}),
            row["models_count"],
            best.get(row["id"], ""),
        )
        for row in rows
    ]
