"""Models and versions: listed, found, deleted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.models import chunk_index, condemned, domains
from services.models import tables as t
from services.models.managers import Managers
from services.shared.database import Database
from services.shared.errors import AlreadyExists, DomainError, InvalidArgument, NotFound, Unavailable

LATEST = "latest"

# Rows read at once while looking for those that the caller may see.
_MOST_ROWS = 1000


class ModelNotFound(NotFound):
    """The manager has no model of that name."""

    reason = "MODEL_NOT_FOUND"


class VersionNotFound(NotFound):
    """The model has no version of that name."""

    reason = "VERSION_NOT_FOUND"


class VersionRewritten(Unavailable):
    """The version has got other keys while it was read: the next attempt finds them."""

    reason = "VERSION_REENCRYPTED"


class VersionExists(AlreadyExists):
    """The model has a version of that name, and versions never change."""

    reason = "VERSION_EXISTS"


@dataclass(frozen=True)
class Model:
    """A model in a listing."""

    manager_id: str
    name: str
    latest_version: str
    versions_count: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Version:
    """A version; `size` in bytes, `manifest_digest` 32 bytes, `uid` a ULID."""

    id: int
    uid: str
    manager_id: str
    model_name: str
    name: str
    size: int
    files_count: int
    created_at: datetime
    created_by: str
    data_key_id: str
    domain_key_id: str
    manifest_key: str
    manifest_digest: bytes
    sha256_verified: bool

    @property
    def protected(self) -> bool:
        """Whether it takes an access code to open it (`version_keys`)."""
        return self.data_key_id == self.domain_key_id


@dataclass(frozen=True)
class Deletion:
    """A version that is gone: how many of its chunks nobody can read any more, and how many others still use."""

    version: Version
    shredded_chunks: int
    shared_chunks: int


class Versions:
    """Queries and deletion.

    Args:
        remove: removes condemned objects and keys, as far as it can.
    """

    def __init__(
        self,
        database: Database,
        managers: Managers,
        remove: Callable[[list[str]], object],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._managers = managers
        self._remove = remove
        self._clock = clock

    def list_models(
        self, manager_id: str, page_size: int, page_token: str, visible: Callable[[str], bool]
    ) -> tuple[list[Model], str]:
        """A page of the models whose name is `visible`, by name, and the token of the next. Raises ManagerNotFound."""
        self._managers.get(manager_id)
        size = page_size or 100
        page: list[Model] = []
        after: str | None = page_token
        limit = size + 1
        with self._database.read() as connection:
            while after is not None and len(page) <= size:
                rows = connection.execute(_MODELS, {"manager": manager_id, "after": after, "most": limit}).all()
                page += [Model(manager_id, *row) for row in rows if visible(row.name)]
                after = rows[-1].name if len(rows) == limit else None
                # Who may see one model in a thousand is not answered by a thousand queries.
                limit = min(2 * limit, _MOST_ROWS)
        more = len(page) > size
        return page[:size], page[size - 1].name if more else ""

    def list_versions(
        self, manager_id: str, model_name: str, page_size: int, page_token: str
    ) -> tuple[list[Version], str]:
        """A page of versions, newest first, and the token of the next. Raises ManagerNotFound, ModelNotFound."""
        self._managers.get(manager_id)
        size = page_size or 100
        query = _versions(manager_id, model_name).order_by(t.versions.c.id.desc()).limit(size + 1)
        if page_token:
            query = query.where(t.versions.c.id < _number(page_token))
        with self._database.read() as connection:
            page = [_version(row) for row in connection.execute(query).mappings()]
            if not page and not page_token:
                raise _no_model(model_name)
        return page[:size], str(page[size - 1].id) if len(page) > size else ""

    def find(self, manager_id: str, model_name: str, version: str) -> Version:
        """The version, or the newest for `latest`. Raises ManagerNotFound, ModelNotFound, VersionNotFound."""
        self._managers.get(manager_id)
        with self._database.read() as connection:
            return find(connection, manager_id, model_name, version)

    def exists(self, version: Version) -> bool:
        """Whether the version is there still."""
        with self._database.read() as connection:
            return _by_uid(connection, version.uid) is not None

    def gone(self, version: Version) -> DomainError | None:
        """Why what the version consists of is there no more; None if it should be."""
        if self.exists(version):
            return None
        query = _select().where(t.versions.c.id == version.id, t.models.c.name == version.model_name)
        with self._database.read() as connection:
            if connection.execute(query).first() is not None:
                return VersionRewritten("This version was re-encrypted just now. Read it again.", version=version.name)
        return VersionNotFound("This version was deleted just now.", version=version.name)

    def by_uid(self, uid: str | None) -> Version:
        """The version an upload became. Raises VersionNotFound if it was deleted since."""
        with self._database.read() as connection:
            row = _by_uid(connection, uid)
        if row is None:
            raise VersionNotFound("The version that this upload became was deleted.")
        return row

    def mark_verified(self, version: Version) -> None:
        """Notes that the sha256 of each of its files was found right."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(t.versions).where(t.versions.c.uid == version.uid).values(sha256_verified=True)
            )

    def delete(self, manager_id: str, model_name: str, version: str) -> Deletion:
        """Deletes a version, its manifest and its data key, and the chunks nobody else holds.

        It is gone with the transaction. What happens outside of it, the removal of key and manifest, is noted in it,
        so that collection makes up for what fails here. Raises as `find`; InvalidArgument for `latest`.
        """
        if version == LATEST:
            raise InvalidArgument("Name the version to delete: `latest` is refused here.", reason="NAME_RESERVED")
        self._managers.get(manager_id)
        now = self._clock()
        with self._database.write() as connection:
            t.hold_references(connection, removing=True)
            found = find(connection, manager_id, model_name, version)
            shredded, shared = chunk_index.drop_version(connection, found.id, now)
            connection.execute(sa.delete(t.versions).where(t.versions.c.id == found.id))
            remove = _unneeded(connection, found)
            condemned.condemn(connection, remove, now)
            _forget_in_model(connection, manager_id, model_name, now)
        self._remove(remove)
        self._database.forget_deleted()
        return Deletion(found, shredded, shared)


def find(connection: sa.Connection, manager_id: str, model_name: str, version: str) -> Version:
    """The version, or the newest for `latest`. Raises ModelNotFound, VersionNotFound."""
    query = _NEWEST if version == LATEST else _NAMED
    names = {"manager": manager_id, "model": model_name, "version": version}
    row = connection.execute(query, names).mappings().one_or_none()
    if row is not None:
        return _version(row)
    if _model_id(connection, manager_id, model_name) is None:
        raise _no_model(model_name)
    message = f"Model '{model_name}' has no version '{version}'."
    raise VersionNotFound(message, model=model_name, version=version)


def hold(connection: sa.Connection, version: Version) -> None:
    """Keeps the version from being deleted before the transaction ends. Raises VersionNotFound if it was already."""
    query = sa.select(t.versions.c.id).where(t.versions.c.uid == version.uid).with_for_update(read=True)
    if connection.scalar(query) is None:
        raise VersionNotFound("This version was deleted just now.", version=version.name)


def exists(connection: sa.Connection, manager_id: str, model_name: str, version: str) -> bool:
    query = _versions(manager_id, model_name).where(t.versions.c.name == version)
    return connection.execute(query).first() is not None


def refuse_existing(connection: sa.Connection, manager_id: str, model_name: str, version: str) -> None:
    """Raises VersionExists."""
    if exists(connection, manager_id, model_name, version):
        message = f"Model '{model_name}' has a version '{version}' already. Versions never change: take another name."
        raise VersionExists(message, model=model_name, version=version)


def insert(connection: sa.Connection, version: Version, chunk_rows: list[int]) -> Version:
    """Adds a version, and its model if it is the first. Raises VersionExists. Returns it with its `id`."""
    names = {"manager_id": version.manager_id, "name": version.model_name}
    now = version.created_at
    t.insert_missing(connection, t.models, [{**names, "versions_count": 0, "created_at": now, "updated_at": now}])
    # The model's row, locked, puts two commits of one version in a row.
    model_id = _model_id(connection, version.manager_id, version.model_name, lock=True)
    refuse_existing(connection, version.manager_id, version.model_name, version.name)
    values = {"model_id": model_id, **{column.name: getattr(version, column.name) for column in _own_columns()}}
    statement = sa.insert(t.versions).values(values).returning(t.versions.c.id)
    number = connection.execute(statement).scalar_one()
    _refer(connection, number, chunk_rows)
    counted = {"versions_count": t.models.c.versions_count + 1, "updated_at": now}
    connection.execute(sa.update(t.models).where(t.models.c.id == model_id).values(counted))
    return replace(version, id=number)


def rewrite(connection: sa.Connection, old: Version, new: Version, chunk_rows: list[int]) -> list[str]:
    """Gives a version the keys, the manifest and the chunks of another; what it is called by stays.

    Expects `tables.hold_references(removing=True)` before. Returns the names of what is condemned by that. Raises
    VersionNotFound if the version was deleted or rewritten meanwhile.
    """
    this = sa.and_(t.versions.c.id == old.id, t.versions.c.uid == old.uid)
    if connection.execute(sa.select(t.versions.c.id).where(this).with_for_update()).first() is None:
        raise VersionNotFound("This version was deleted just now.", version=old.name)
    changed = ("uid", "data_key_id", "domain_key_id", "manifest_key", "manifest_digest")
    connection.execute(sa.update(t.versions).where(this).values({name: getattr(new, name) for name in changed}))
    receipts = sa.update(t.uploads).where(t.uploads.c.version_uid == old.uid)
    connection.execute(receipts.values(version_uid=new.uid))
    chunk_index.drop_version(connection, old.id, new.created_at)
    _refer(connection, old.id, chunk_rows)
    unneeded = _unneeded(connection, old)
    condemned.condemn(connection, unneeded, new.created_at)
    return unneeded


def _refer(connection: sa.Connection, version: int, chunk_rows: list[int]) -> None:
    if chunk_rows:
        rows = [{"version": version, "chunk": row} for row in sorted(chunk_rows)]
        connection.execute(sa.insert(t.version_chunks), rows)


def _unneeded(connection: sa.Connection, gone: Version) -> list[str]:
    """The names of what a version needed that has no row any more, and nothing else needs."""
    own = [gone.manifest_key, condemned.name_of_key(gone.data_key_id)]
    return own if gone.protected else own + domains.unreferenced(connection, gone.domain_key_id)


def _forget_in_model(connection: sa.Connection, manager_id: str, model_name: str, now: datetime) -> None:
    this = sa.and_(t.models.c.manager_id == manager_id, t.models.c.name == model_name)
    counted = {"versions_count": t.models.c.versions_count - 1, "updated_at": now}
    connection.execute(sa.update(t.models).where(this).values(counted))
    connection.execute(sa.delete(t.models).where(this, t.models.c.versions_count == 0))


def _model_id(connection: sa.Connection, manager_id: str, model_name: str, *, lock: bool = False) -> int | None:
    query = sa.select(t.models.c.id).where(t.models.c.manager_id == manager_id, t.models.c.name == model_name)
    return connection.scalar(query.with_for_update() if lock else query)


def _versions(manager_id: str | sa.BindParameter[str], model_name: str | sa.BindParameter[str]) -> sa.Select[Any]:
    return _select().where(t.models.c.manager_id == manager_id, t.models.c.name == model_name)


def _by_uid(connection: sa.Connection, uid: str | None) -> Version | None:
    row = connection.execute(_select().where(t.versions.c.uid == uid)).mappings().one_or_none()
    return None if row is None else _version(row)


def _own_columns() -> list[sa.Column[Any]]:
    return [column for column in t.versions.c if column.name not in ("id", "model_id")]


def _select() -> sa.Select[Any]:
    model = (t.models.c.manager_id, t.models.c.name.label("model_name"))
    return sa.select(t.versions.c.id, *_own_columns(), *model).join(t.models, t.versions.c.model_id == t.models.c.id)


def _version(row: sa.RowMapping) -> Version:
    return Version(**row)


def _number(page_token: str) -> int:
    if not (page_token.isascii() and page_token.isdecimal() and len(page_token) < 19):
        raise InvalidArgument("`page_token` is none of ours.", reason="PAGE_TOKEN_INVALID")
    return int(page_token)


def _no_model(model_name: str) -> ModelNotFound:
    return ModelNotFound(f"There is no model '{model_name}'.", model=model_name)


def _models() -> sa.Select[Any]:
    c = t.models.c
    newest = sa.select(t.versions.c.name).where(t.versions.c.model_id == c.id).order_by(t.versions.c.id.desc()).limit(1)
    columns = (c.name, newest.scalar_subquery(), c.versions_count, c.created_at, c.updated_at)
    page = sa.select(*columns).where(c.manager_id == sa.bindparam("manager"), c.name > sa.bindparam("after"))
    return page.order_by(c.name).limit(sa.bindparam("most"))


# Asked most often: building a statement anew would cost as much as running it.
_MODELS = _models()
_NEWEST = _versions(sa.bindparam("manager"), sa.bindparam("model")).order_by(t.versions.c.id.desc()).limit(1)
_NAMED = _NEWEST.where(t.versions.c.name == sa.bindparam("version"))
