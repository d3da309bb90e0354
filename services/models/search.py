"""Finds models and versions. Each call looks at a bounded number of rows, and goes on where the last one stopped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from services.models import catalog_tables as c
from services.models import etags, notes, versions
from services.models import tables as t
from services.models.annotations import ModelEntry
from services.models.managers import Managers
from services.models.notes import NO_STAGE, Notes
from services.models.text_search import ROWS, SEARCHED, Budget, TextFilter
from services.models.versions import Version
from services.shared.database import Database
from services.shared.errors import InvalidArgument

Visible = Callable[[str], bool]


class Search:
    """Searches in a manager. `visible` says of a model's name whether the caller may read it.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, database: Database, managers: Managers, clock: Callable[[], float]) -> None:
        self._database = database
        self._managers = managers
        self._clock = clock

    def models(
        self,
        manager_id: str,
        text: TextFilter,
        tags: Mapping[str, str],
        page_size: int,
        page_token: str,
        visible: Visible,
    ) -> tuple[list[ModelEntry], str]:
        """A page of models by name, without cards and aliases, and the token of the next. Raises ManagerNotFound."""
        self._managers.get(manager_id)

        def rows(after: str, connection: sa.Connection) -> Sequence[sa.Row[Any]]:
            query = _models(manager_id, tags).where(t.models.c.name > after)
            return connection.execute(query.order_by(t.models.c.name).limit(ROWS)).all()

        with self._database.read() as connection:
            scan = _Scan(rows, lambda row: str(row.name), page_token, connection, Budget(self._clock))
            found = scan.page(page_size, lambda row: visible(row.name) and text.finds(row.name, row.card or ""))
            said = notes.tags_of(connection, c.model_tags, [row.id for row in found])
        return [_entry(manager_id, row, said[row.id]) for row in found], scan.token

    def versions(
        self,
        manager_id: str,
        model_name: str,
        text: TextFilter,
        tags: Mapping[str, str],
        stage: str,
        page_size: int,
        page_token: str,
        visible: Visible,
    ) -> tuple[list[tuple[Version, Notes]], str]:
        """A page of versions by model, newest first, and the token of the next. Raises ManagerNotFound."""
        self._managers.get(manager_id)

        def rows(after: str, connection: sa.Connection) -> Sequence[sa.Row[Any]]:
            return connection.execute(_after(_versions(manager_id, model_name, tags, stage), after)).all()

        def matches(row: Any) -> bool:
            return visible(row.model_name) and text.finds(f"{row.model_name}@{row.name}", row.card or "")

        with self._database.read() as connection:
            scan = _Scan(rows, lambda row: f"{row.model_name}@{row.id}", page_token, connection, Budget(self._clock))
            found = scan.page(page_size, matches)
            numbers = [row.id for row in found]
            by_number = versions.by_numbers(connection, numbers)
            said = notes.of_versions(connection, numbers)
        return [(by_number[number], said[number]) for number in numbers], scan.token


class _Scan:
    """Reads rows in portions after a key, until a page is full or the budget spent. `token` says where to go on; empty
    at the end."""

    def __init__(
        self,
        rows: Callable[[str, sa.Connection], Sequence[sa.Row[Any]]],
        key: Callable[[Any], str],
        after: str,
        connection: sa.Connection,
        budget: Budget,
    ) -> None:
        self._rows = rows
        self._key = key
        self._connection = connection
        self._budget = budget
        self.token = after

    def page(self, page_size: int, wanted: Callable[[Any], bool]) -> list[Any]:
        size = page_size or 100
        found: list[Any] = []
        for row in self._all():
            if len(found) == size:
                return found
            self.token = self._key(row)
            if wanted(row):
                found.append(row)
            if self._budget.spent():
                return found
        return found

    def _all(self) -> Iterator[Any]:
        """All that may be looked at, and an empty token if there is nothing behind it."""
        while True:
            portion = self._rows(self.token, self._connection)
            yield from portion
            if len(portion) < ROWS:
                self.token = ""
                return


def _models(manager_id: str, tags: Mapping[str, str]) -> sa.Select[Any]:
    m, n = t.models.c, c.model_notes.c
    newest = sa.select(t.versions.c.name).where(t.versions.c.model_id == m.id).order_by(t.versions.c.id.desc()).limit(1)
    card = sa.func.substr(n.card, 1, SEARCHED).label("card")
    columns = (m.id, m.name, newest.scalar_subquery().label("latest"), m.versions_count, m.created_at, m.updated_at)
    query = sa.select(*columns, card, n.etag).outerjoin(c.model_notes, n.model == m.id)
    return query.where(m.manager_id == manager_id, *_tagged(c.model_tags, m.id, tags))


def _versions(manager_id: str, model_name: str, tags: Mapping[str, str], stage: str) -> sa.Select[Any]:
    m, v, n = t.models.c, t.versions.c, c.version_notes.c
    card = sa.func.substr(n.card, 1, SEARCHED).label("card")
    query = sa.select(v.id, v.name, m.name.label("model_name"), card).join_from(
        t.models, t.versions, v.model_id == m.id
    )
    query = query.outerjoin(c.version_notes, n.version == v.id)
    query = query.where(m.manager_id == manager_id, *_tagged(c.version_tags, v.id, tags))
    if model_name:
        query = query.where(m.name == model_name)
    if stage:
        query = query.where(sa.func.coalesce(n.stage, NO_STAGE) == stage)
    return query.order_by(m.name, v.id.desc()).limit(ROWS)


def _after(query: sa.Select[Any], token: str) -> sa.Select[Any]:
    """Raises InvalidArgument."""
    if not token:
        return query
    name, _, number = token.rpartition("@")
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise InvalidArgument("`page_token` is none of ours.", reason="PAGE_TOKEN_INVALID")
    beyond = sa.or_(t.models.c.name > name, t.versions.c.id < int(number))
    return query.where(t.models.c.name >= name, beyond)


def _tagged(table: sa.Table, number: sa.Column[Any], tags: Mapping[str, str]) -> list[sa.ColumnElement[bool]]:
    owner = next(iter(table.c))
    return [
        sa.exists().where(owner == number, table.c.name == name, table.c.value == value) for name, value in tags.items()
    ]


def _entry(manager_id: str, row: Any, tags: Mapping[str, str]) -> ModelEntry:
    return ModelEntry(
        manager_id=manager_id,
        name=row.name,
        latest_version=row.latest or "",
        versions_count=row.versions_count,
        created_at=row.created_at,
        updated_at=row.updated_at,
        etag=row.etag or etags.NEVER_SET,
        tags=tags,
    )
