"""What is said about versions, read for many of them at a time: a listing takes as many statements as one version."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from services.models import catalog_tables as c
from services.models import etags
from services.models import tables as t
from services.shared.errors import FailedPrecondition

NO_STAGE = "none"
PRODUCTION = "production"


class VersionInUse(FailedPrecondition):
    """Something points to the version, and would point to nothing."""

    reason = "VERSION_IN_USE"


@dataclass(frozen=True)
class Notes:
    """What is said about a version. `card` and `metrics` are empty where they were not asked for."""

    aliases: tuple[str, ...] = ()
    stage: str = NO_STAGE
    card: str = ""
    etag: str = etags.NEVER_SET
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def of_versions(connection: sa.Connection, numbers: Sequence[int], *, whole: bool = False) -> dict[int, Notes]:
    """The notes of versions by their row ids; cards and metrics, of which there may be a lot, if `whole`."""
    found: dict[int, dict[str, Any]] = {number: {} for number in numbers}
    own = c.version_notes.c
    columns = (own.version, own.stage, own.etag, *([own.card] if whole else []))
    for batch in t.batches(numbers):
        for row in connection.execute(sa.select(*columns).where(own.version.in_(batch))).mappings():
            found[row["version"]].update({name: row[name] for name in row if name != "version"})
        _collect(connection, c.version_tags, batch, "tags", found)
        if whole:
            _collect(connection, t.version_metrics, batch, "metrics", found)
        for number, names in _aliases(connection, batch).items():
            found[number]["aliases"] = tuple(names)
    return {number: Notes(**values) for number, values in found.items()}


def tags_of(connection: sa.Connection, table: sa.Table, numbers: Sequence[int]) -> dict[int, dict[str, str]]:
    """The tags of models or versions by row id; `table` is `model_tags` or `version_tags`."""
    found: dict[int, dict[str, Any]] = {number: {} for number in numbers}
    for batch in t.batches(numbers):
        _collect(connection, table, batch, "tags", found)
    return {number: values.get("tags", {}) for number, values in found.items()}


def refuse_in_use(connection: sa.Connection, number: int, version: str) -> None:
    """Raises VersionInUse. Without this, whoever may delete could empty an alias or a stage they may not touch."""
    notes = of_versions(connection, [number])[number]
    uses = [f"alias '{name}'" for name in notes.aliases] + (["production"] if notes.stage == PRODUCTION else [])
    if uses:
        message = f"Version '{version}' is in use by {', '.join(uses[:10])}. Point those elsewhere, then delete it."
        raise VersionInUse(message, version=version)


def refuse_any_in_use(connection: sa.Connection, manager_id: str) -> None:
    """Raises VersionInUse for the first version of the manager that is in use."""
    named = sa.exists().where(c.aliases.c.version == t.versions.c.id)
    served = sa.exists().where(c.version_notes.c.version == t.versions.c.id, c.version_notes.c.stage == PRODUCTION)
    query = (
        sa.select(t.versions.c.id, t.models.c.name, t.versions.c.name)
        .join(t.models, t.versions.c.model_id == t.models.c.id)
        .where(t.models.c.manager_id == manager_id, sa.or_(named, served))
        .order_by(t.models.c.name, t.versions.c.id)
    )
    row = connection.execute(query.limit(1)).one_or_none()
    if row is not None:
        number, model, version = row
        refuse_in_use(connection, number, f"{model}@{version}")


def _aliases(connection: sa.Connection, numbers: Sequence[int]) -> dict[int, list[str]]:
    own = c.aliases.c
    query = sa.select(own.version, own.name).where(own.version.in_(numbers)).order_by(own.name)
    names: dict[int, list[str]] = defaultdict(list)
    for row in connection.execute(query):
        names[row.version].append(row.name)
    return names


def _collect(
    connection: sa.Connection, table: sa.Table, numbers: Sequence[int], into: str, found: dict[int, dict[str, Any]]
) -> None:
    """Rows of owner, name and value, as one dictionary an owner."""
    owner = next(iter(table.c))
    query = sa.select(owner, table.c.name, table.c.value).where(owner.in_(numbers)).order_by(owner, table.c.name)
    for number, name, value in connection.execute(query):
        found[number].setdefault(into, {})[name] = value
