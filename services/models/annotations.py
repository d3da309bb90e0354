"""Cards, tags and stages of models and versions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from services.models import catalog_tables as c
from services.models import etags, notes, versions
from services.models import tables as t
from services.models.managers import Managers
from services.models.notes import NO_STAGE, Notes
from services.models.versions import Version
from services.shared.database import Database


@dataclass(frozen=True)
class ModelEntry:
    """A model and what is said about it; `aliases` says which version each names."""

    manager_id: str
    name: str
    latest_version: str
    versions_count: int
    created_at: datetime
    updated_at: datetime
    card: str = ""
    etag: str = etags.NEVER_SET
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


class Annotations:
    """What is said about models and versions.

    Args:
        new_etag: makes up a string of at most 26 letters and digits that never came before.
    """

    def __init__(self, database: Database, managers: Managers, new_etag: Callable[[], str]) -> None:
        self._database = database
        self._managers = managers
        self._new_etag = new_etag

    def model(self, manager_id: str, model_name: str) -> ModelEntry:
        """Raises ManagerNotFound, ModelNotFound."""
        self._managers.get(manager_id)
        with self._database.read() as connection:
            return _entry(connection, manager_id, model_name)

    def of(self, found: list[Version], *, whole: bool = False) -> dict[int, Notes]:
        """The notes of versions by their row ids; cards and metrics only if `whole`."""
        with self._database.read() as connection:
            return notes.of_versions(connection, [version.id for version in found], whole=whole)

    def update_model(
        self, manager_id: str, model_name: str, card: str, tags: Mapping[str, str], *, expected: str = ""
    ) -> ModelEntry:
        """Replaces a model's card and tags. Raises ManagerNotFound, ModelNotFound, EtagMismatch."""
        self._managers.get(manager_id)
        with self._database.write() as connection:
            model = versions.lock_model(connection, manager_id, model_name)
            etags.check(expected, _entry(connection, manager_id, model_name).etag)
            values = {"card": card, "etag": self._new_etag()}
            t.insert_or_set(connection, c.model_notes, [{"model": model, **values}], **values)
            _replace_tags(connection, c.model_tags, model, tags)
            return _entry(connection, manager_id, model_name)

    def update_version(
        self,
        manager_id: str,
        model_name: str,
        version: str,
        card: str,
        tags: Mapping[str, str],
        *,
        expected: str = "",
    ) -> tuple[Version, Notes]:
        """Replaces a version's card and tags. Raises as `update_model`, and VersionNotFound."""

        def change(connection: sa.Connection, number: int, _now: Notes) -> dict[str, str]:
            _replace_tags(connection, c.version_tags, number, tags)
            return {"card": card}

        return self._change(manager_id, model_name, version, expected, change)

    def set_stage(
        self,
        manager_id: str,
        model_name: str,
        version: str,
        stage: str,
        *,
        expected: str = "",
        leaving: Callable[[str], None],
    ) -> tuple[Version, Notes]:
        """Moves a version to a stage. Raises as `update_version`.

        Args:
            leaving: raises if the caller may not take a version out of this stage.
        """

        def change(_connection: sa.Connection, _number: int, now: Notes) -> dict[str, str]:
            if now.stage not in (NO_STAGE, stage):
                leaving(now.stage)
            return {"stage": stage}

        return self._change(manager_id, model_name, version, expected, change)

    def touch(self, connection: sa.Connection, number: int, expected: str) -> str:
        """Gives a version, whose model is locked, another etag. Raises EtagMismatch."""
        now = notes.of_versions(connection, [number])[number]
        etags.check(expected, now.etag)
        return self._record(connection, number, {})

    def _change(
        self,
        manager_id: str,
        model_name: str,
        version: str,
        expected: str,
        change: Callable[[sa.Connection, int, Notes], dict[str, str]],
    ) -> tuple[Version, Notes]:
        self._managers.get(manager_id)
        with self._database.write() as connection:
            versions.lock_model(connection, manager_id, model_name)
            found = versions.find(connection, manager_id, model_name, version)
            now = notes.of_versions(connection, [found.id])[found.id]
            etags.check(expected, now.etag)
            self._record(connection, found.id, change(connection, found.id, now))
            return found, notes.of_versions(connection, [found.id], whole=True)[found.id]

    def _record(self, connection: sa.Connection, number: int, changes: dict[str, str]) -> str:
        changes = {**changes, "etag": self._new_etag()}
        row = {"version": number, "card": "", "stage": NO_STAGE, **changes}
        t.insert_or_set(connection, c.version_notes, [row], **changes)
        return changes["etag"]


def _replace_tags(connection: sa.Connection, table: sa.Table, number: int, tags: Mapping[str, str]) -> None:
    owner = next(iter(table.c))
    connection.execute(sa.delete(table).where(owner == number))
    rows = [{owner.name: number, "name": name, "value": value} for name, value in sorted(tags.items())]
    t.insert_missing(connection, table, rows)


def _entry(connection: sa.Connection, manager_id: str, model_name: str) -> ModelEntry:
    """Raises ModelNotFound."""
    newest = versions.find(connection, manager_id, model_name, versions.LATEST)
    m, n = t.models.c, c.model_notes.c
    query = (
        sa.select(m.id, m.versions_count, m.created_at, m.updated_at, n.card, n.etag)
        .outerjoin(c.model_notes, n.model == m.id)
        .where(m.manager_id == manager_id, m.name == model_name)
    )
    row = connection.execute(query).one()
    named = sa.select(c.aliases.c.name, t.versions.c.name).join(t.versions, t.versions.c.id == c.aliases.c.version)
    aliases = connection.execute(named.where(c.aliases.c.model == row.id).order_by(c.aliases.c.name))
    return ModelEntry(
        manager_id=manager_id,
        name=model_name,
        latest_version=newest.name,
        versions_count=row.versions_count,
        created_at=row.created_at,
        updated_at=row.updated_at,
        card=row.card or "",
        etag=row.etag or etags.NEVER_SET,
        tags=notes.tags_of(connection, c.model_tags, [row.id])[row.id],
        aliases={row[0]: row[1] for row in aliases},
    )
