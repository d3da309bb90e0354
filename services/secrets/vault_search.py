"""Finding secrets: by the beginning of their names, folder by folder, by words and labels. Never by their values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.secrets import vault_labels
from services.secrets.tables import secret_labels, secret_versions, secrets
from services.secrets.vault_errors import SecretNotFound
from services.secrets.vault_records import SecretSummary
from services.shared.database import Database

# Sorts behind every character of a name.
_BEHIND = "~"
# Rows read at a time while a listing is filtered by what the caller may see.
_BATCH = 500


@dataclass(frozen=True)
class Wanted:
    """What is looked for."""

    prefix: str = ""
    # Only what stands directly below the prefix; what is deeper is told as folders.
    by_folder: bool = False
    # Each of these words, in any case, must be part of the name or of a label.
    words: Sequence[str] = ()
    # The value of each label; None: any value.
    labels: Mapping[str, str | None] | None = None
    # With deleted secrets among the others.
    deleted: bool = False
    # The current version is in use since before then.
    written_before: datetime | None = None


@dataclass(frozen=True)
class Found:
    """A page of what was found."""

    secrets: Sequence[SecretSummary]
    # Each ends in `/`; only folders that hold something the caller may see.
    folders: Sequence[str]
    # From behind this the next page begins; empty after the last.
    next: str = ""


def summary(database: Database, name: str) -> SecretSummary:
    """One secret, also a deleted one. Raises SecretNotFound."""
    with database.read() as connection:
        row = connection.execute(_summaries().where(secrets.c.name == name)).one_or_none()
        if row is None:
            raise SecretNotFound(name)
        return _labelled(connection, [row])[0]


def search(
    database: Database, wanted: Wanted, *, visible: Callable[[str], bool], after: str = "", limit: int = 100
) -> Found:
    """At most `limit` secrets and folders, in order of their names, from behind `after`: those that are `visible`."""
    page: list[Row[Any]] = []
    folders: list[str] = []
    last = folder = ""
    with database.read() as connection:
        while True:
            rows = connection.execute(_matching(wanted, after)).all()
            for row in rows:
                if (folder and row.name.startswith(folder)) or not visible(row.name):
                    continue
                if len(page) + len(folders) == limit:
                    return Found(_labelled(connection, page), folders, last)
                folder = _folder(row.name, wanted)
                if folder:
                    folders.append(folder)
                else:
                    page.append(row)
                last = folder + _BEHIND if folder else row.name
            if len(rows) < _BATCH:
                return Found(_labelled(connection, page), folders)
            # A folder that is told already is passed over, however much it holds.
            after = max(rows[-1].name, folder + _BEHIND if folder else "")


def _folder(name: str, wanted: Wanted) -> str:
    """Where in a listing by folders this name stands, ending in `/`; empty if directly there."""
    below, slash, _ = name.removeprefix(wanted.prefix).partition("/")
    return wanted.prefix + below + slash if wanted.by_folder and slash else ""


def _summaries() -> sa.Select[Any]:
    v = secret_versions.c
    current = sa.and_(v.secret_name == secrets.c.name, v.version == secrets.c.current_version)
    return sa.select(secrets, v.expires_at).select_from(secrets.outerjoin(secret_versions, current))


def _matching(wanted: Wanted, after: str) -> sa.Select[Any]:
    name, label = secrets.c.name, secret_labels.c
    matching = _summaries().where(name > after).order_by(name).limit(_BATCH)
    if wanted.prefix:
        # A range and not LIKE, which on SQLite takes `a` for `A`.
        matching = matching.where(name >= wanted.prefix, name < wanted.prefix + _BEHIND)
    if not wanted.deleted:
        matching = matching.where(secrets.c.deleted_at.is_(None))
    if wanted.written_before is not None:
        matching = matching.where(secrets.c.current_version > 0, secrets.c.updated_at < wanted.written_before)
    for word in wanted.words:
        said = sa.or_(label.key.icontains(word, autoescape=True), label.value.icontains(word, autoescape=True))
        labelled = sa.exists().where(label.secret_name == name, said)
        matching = matching.where(sa.or_(name.icontains(word, autoescape=True), labelled))
    for key, value in (wanted.labels or {}).items():
        has = sa.exists().where(label.secret_name == name, label.key == key)
        matching = matching.where(has if value is None else has.where(label.value == value))
    return matching


def _labelled(connection: Connection, rows: Sequence[Row[Any]]) -> list[SecretSummary]:
    labels = vault_labels.of(connection, [row.name for row in rows])
    return [replace(_summary(row), labels=labels[row.name]) for row in rows]


def _summary(row: Row[Any]) -> SecretSummary:
    return SecretSummary(
        row.name,
        row.current_version,
        row.created_at,
        row.updated_at,
        expires_at=row.expires_at,
        deleted_at=row.deleted_at,
    )
