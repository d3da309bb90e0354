"""Aliases: names that move from version to version."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.models import catalog_tables as c
from services.models import etags, metrics, versions
from services.models import tables as t
from services.models.managers import Managers
from services.models.versions import LATEST
from services.shared.database import Database
from services.shared.errors import FailedPrecondition, InvalidArgument, NotFound

# They stand in every listing of versions.
MOST_ALIASES = 100

_RESERVED = {LATEST, ".", ".."}


class AliasNotFound(NotFound):
    """The model has no alias of that name."""

    reason = "ALIAS_NOT_FOUND"


class AliasesTooMany(FailedPrecondition):
    """The model has as many aliases as there may be."""

    reason = "ALIASES_TOO_MANY"


class PromotionRefused(FailedPrecondition):
    """The version is not better than the one the alias names."""

    reason = "PROMOTION_REFUSED"


@dataclass(frozen=True)
class Alias:
    """An alias, and the version it named before if it was moved just now."""

    manager_id: str
    model_name: str
    name: str
    version: str
    etag: str
    updated_at: datetime
    updated_by: str
    previous_version: str = ""


class Aliases:
    """The aliases of models.

    Args:
        new_etag: makes up a string of at most 26 letters and digits that never came before.
    """

    def __init__(
        self, database: Database, managers: Managers, clock: Callable[[], datetime], new_etag: Callable[[], str]
    ) -> None:
        self._database = database
        self._managers = managers
        self._clock = clock
        self._new_etag = new_etag

    def get(self, manager_id: str, model_name: str, name: str) -> Alias:
        """Raises ManagerNotFound, ModelNotFound, AliasNotFound."""
        with self._database.read() as connection:
            names = {"manager": manager_id, "model": model_name, "alias": name}
            row = connection.execute(_NAMED, names).one_or_none()
            if row is None:
                self._managers.get(manager_id)
                versions.find(connection, manager_id, model_name, LATEST)
                raise _missing(model_name, name)
        return _alias(manager_id, model_name, row)

    def list(self, manager_id: str, model_name: str, page_size: int, page_token: str) -> tuple[list[Alias], str]:
        """A page of a model's aliases by name, and the token of the next. Raises ManagerNotFound, ModelNotFound."""
        self._managers.get(manager_id)
        size = page_size or 100
        query = _OF_MODEL.where(c.aliases.c.name > page_token).order_by(c.aliases.c.name).limit(size + 1)
        with self._database.read() as connection:
            rows = connection.execute(query, {"manager": manager_id, "model": model_name}).all()
            if not rows:
                versions.find(connection, manager_id, model_name, LATEST)
        page = [_alias(manager_id, model_name, row) for row in rows[:size]]
        return page, page[-1].name if len(rows) > size else ""

    def set(
        self,
        manager_id: str,
        model_name: str,
        name: str,
        version: str,
        by: str,
        *,
        expected: str = "",
        if_better: str = "",
    ) -> Alias:
        """Points the alias to the version.

        Args:
            by: who does it.
            expected: the alias's etag as it was read; empty if it does not matter.
            if_better: a metric in which the version has to beat the one the alias names now.

        Raises:
            ManagerNotFound, ModelNotFound, VersionNotFound, EtagMismatch, PromotionRefused, AliasesTooMany,
            InvalidArgument.
        """
        if name in _RESERVED:
            raise InvalidArgument(f"'{name}' is no name for an alias.", reason="NAME_RESERVED")
        self._managers.get(manager_id)
        with self._database.write() as connection:
            model = versions.lock_model(connection, manager_id, model_name)
            found = versions.find(connection, manager_id, model_name, version)
            current = _current(connection, model, name)
            etags.check(expected, current.etag if current else etags.NEVER_SET)
            if if_better:
                _refuse_worse(connection, if_better, found.id, current.number if current else None)
            if current is None:
                _refuse_more(connection, model)
            values: dict[str, Any] = {
                "version": found.id,
                "etag": self._new_etag(),
                "updated_at": self._clock(),
                "updated_by": by,
            }
            t.insert_or_set(connection, c.aliases, [{"model": model, "name": name, **values}], **values)
        previous = current.version if current else ""
        return Alias(manager_id, model_name, name, found.name, values["etag"], values["updated_at"], by, previous)

    def delete(self, manager_id: str, model_name: str, name: str, *, expected: str = "") -> Alias:
        """Removes the alias. Raises ManagerNotFound, ModelNotFound, AliasNotFound, EtagMismatch."""
        self._managers.get(manager_id)
        with self._database.write() as connection:
            model = versions.lock_model(connection, manager_id, model_name)
            names = {"manager": manager_id, "model": model_name, "alias": name}
            row = connection.execute(_NAMED, names).one_or_none()
            if row is None:
                raise _missing(model_name, name)
            etags.check(expected, row.etag)
            connection.execute(sa.delete(c.aliases).where(c.aliases.c.model == model, c.aliases.c.name == name))
        return _alias(manager_id, model_name, row)


@dataclass(frozen=True)
class _Current:
    number: int
    version: str
    etag: str


def _current(connection: sa.Connection, model: int, name: str) -> _Current | None:
    own = c.aliases.c
    query = (
        sa.select(own.version, t.versions.c.name, own.etag)
        .join(t.versions, t.versions.c.id == own.version)
        .where(own.model == model, own.name == name)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _Current(*row)


def _refuse_more(connection: sa.Connection, model: int) -> None:
    """Raises AliasesTooMany."""
    own = c.aliases.c
    if connection.execute(sa.select(sa.func.count()).where(own.model == model)).scalar_one() >= MOST_ALIASES:
        raise AliasesTooMany(f"A model has at most {MOST_ALIASES} aliases. Remove one first.")


def _refuse_worse(connection: sa.Connection, metric: str, candidate: int, current: int | None) -> None:
    """Raises PromotionRefused."""
    own = t.version_metrics.c
    query = sa.select(own.version, own.value).where(own.name == metric, own.version.in_([candidate, current or 0]))
    values = {row.version: row.value for row in connection.execute(query)}
    if candidate not in values:
        raise PromotionRefused(f"The version has no metric '{metric}'. Record it first.", metric=metric)
    mine, theirs = values[candidate], values.get(current or 0)
    better = theirs is None or (mine < theirs if metric in metrics.LOWER_IS_BETTER else mine > theirs)
    if not better:
        message = f"Its {metric} is {mine:g}, which is not better than {theirs:g} of the version it would replace."
        raise PromotionRefused(message, metric=metric)


def _alias(manager_id: str, model_name: str, row: Sequence[Any]) -> Alias:
    return Alias(manager_id, model_name, *row)


def _missing(model_name: str, name: str) -> AliasNotFound:
    return AliasNotFound(f"Model '{model_name}' has no alias '{name}'.", model=model_name, alias=name)


def _of_model() -> sa.Select[tuple[str, str, str, datetime, str]]:
    own = c.aliases.c
    return (
        sa.select(own.name, t.versions.c.name, own.etag, own.updated_at, own.updated_by)
        .join(t.models, t.models.c.id == own.model)
        .join(t.versions, t.versions.c.id == own.version)
        .where(t.models.c.manager_id == sa.bindparam("manager"), t.models.c.name == sa.bindparam("model"))
    )


# Asked whenever a model is pulled by alias: building a statement anew would cost as much as running it.
_OF_MODEL = _of_model()
_NAMED = _OF_MODEL.where(c.aliases.c.name == sa.bindparam("alias"))
