"""What jobs make, and what callers put beside it: trees of artifacts, a trained model at the root, predictions
below it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.models import ml_tables as m
from services.models.artifacts import ArtifactNotFound
from services.models.jobs.payloads import Payloads
from services.models.managers import DEFAULT_MANAGER
from services.models.versions import Versions
from services.shared.database import Database
from services.shared.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

_PAGE = 100
# Levels below a root, and artifacts that a tree shows.
_DEEPEST = 32
_MOST_NODES = 1000

Visible = Callable[[str], bool]


class ArtifactExists(AlreadyExists):
    """There is an artifact of that id."""

    reason = "ARTIFACT_EXISTS"


class ArtifactHasChildren(FailedPrecondition):
    """Artifacts below it are to be deleted first."""

    reason = "ARTIFACT_HAS_CHILDREN"


class ArtifactTooLarge(InvalidArgument):
    """What it says belongs into a version of weights."""

    reason = "ARTIFACT_TOO_LARGE"


class ArtifactTooDeep(InvalidArgument):
    """The tree has as many levels as one may have."""

    reason = "ARTIFACT_TOO_DEEP"


@dataclass(frozen=True)
class MlArtifact:
    """An artifact. `model_name` and `version` name the version that a trained model is; empty for others."""

    id: str
    manager_id: str
    parent_id: str | None
    level: int
    model_name: str
    version: str
    job_id: str
    config_id: str
    created_at: datetime
    updated_at: datetime

    @property
    def url(self) -> str:
        """Where a trained model is; empty for others."""
        return f"strongroom://{self.manager_id}/{self.model_name}/{self.version}" if self.version else ""


@dataclass(frozen=True)
class Node:
    """An artifact of a tree with those below it."""

    artifact: MlArtifact
    children: Sequence["Node"] = field(default=())


class MlArtifacts:
    """Keeps artifacts. What they say is sealed (`payloads`)."""

    def __init__(
        self,
        database: Database,
        payloads: Payloads,
        versions: Versions,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._payloads = payloads
        self._versions = versions
        self._clock = clock
        self._new_id = new_id

    def create(self, artifact_id: str, parent_id: str, data: Any, by: str) -> tuple[MlArtifact, Any]:
        """Adds what a caller says. Raises ArtifactNotFound for the parent, ArtifactExists, ArtifactTooDeep."""
        now = self._clock()
        made = MlArtifact(
            *(artifact_id or self._new_id(), DEFAULT_MANAGER, parent_id or None, 0, "", "", "", "", now, now)
        )
        with self._database.read() as connection:
            manager_id = find(connection, parent_id).manager_id if parent_id else DEFAULT_MANAGER
        sealed = self._payloads.seal(manager_id, payload_name(made.id), data)
        with self._database.write() as connection:
            # A job's, which is there later, must not be taken before.
            if connection.scalar(sa.select(m.jobs.c.id).where(m.jobs.c.artifact_id == made.id)) is not None:
                raise _exists(made.id)
            return insert(connection, made, sealed, by), data

    def get(self, artifact_id: str) -> MlArtifact:
        """Raises ArtifactNotFound."""
        with self._database.read() as connection:
            return find(connection, artifact_id)

    def read(self, artifact_id: str) -> tuple[MlArtifact, Any]:
        """An artifact with its data. Raises ArtifactNotFound, PayloadDamaged."""
        with self._database.read() as connection:
            found = find(connection, artifact_id)
            sealed = connection.scalar(sa.select(m.ml_artifacts.c.sealed).where(m.ml_artifacts.c.id == artifact_id))
        return found, self._payloads.open(found.manager_id, payload_name(found.id), sealed or b"")

    def list(self, page_size: int, page_token: str, visible: Visible) -> tuple[list[MlArtifact], str]:
        """A page of artifacts, the newest first, of those that are `visible`, and the token of the next."""
        size = page_size or _PAGE
        query = _SELECT.order_by(m.ml_artifacts.c.id.desc()).limit(size)
        if page_token:
            query = query.where(m.ml_artifacts.c.id < page_token)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        token = rows[-1].id if len(rows) == size else ""
        return [_artifact(row) for row in rows if visible(row.id)], token

    def tree(self, artifact_id: str, visible: Visible) -> Node:
        """The artifact and those below it that are `visible`, the oldest first. Raises ArtifactNotFound."""
        with self._database.read() as connection:
            root = find(connection, artifact_id)
            below: dict[str, list[MlArtifact]] = {}
            level, count = [root.id], 1
            while level and count < _MOST_NODES:
                parents = _SELECT.where(m.ml_artifacts.c.parent.in_(level)).order_by(m.ml_artifacts.c.id)
                rows = connection.execute(parents.limit(_MOST_NODES - count)).all()
                found = [_artifact(row) for row in rows if visible(row.id)]
                for artifact in found:
                    below.setdefault(artifact.parent_id or "", []).append(artifact)
                level, count = [artifact.id for artifact in found], count + len(found)
        return _node(root, below)

    def delete(self, artifact_id: str) -> None:
        """Deletes an artifact, and the version that a trained model is. Raises ArtifactNotFound, ArtifactHasChildren.

        The version goes first: after a crash in between, the artifact is there to be deleted again.
        """
        found = self.get(artifact_id)
        with self._database.read() as connection:
            _refuse_parents(connection, artifact_id)
        if found.version:
            with suppress(NotFound):
                self._versions.delete(found.manager_id, found.model_name, found.version)
        try:
            with self._database.write() as connection:
                connection.execute(sa.delete(m.ml_artifacts).where(m.ml_artifacts.c.id == artifact_id))
        except sa.exc.IntegrityError:  # somebody has put one below it just now
            raise _has_children(artifact_id) from None


def insert(connection: sa.Connection, artifact: MlArtifact, sealed: bytes, by: str) -> MlArtifact:
    """Adds an artifact at the level below its parent's, in its parent's manager.

    Raises ArtifactNotFound for the parent, ArtifactExists, ArtifactTooDeep.
    """
    manager_id, level = artifact.manager_id, 0
    if artifact.parent_id:
        parent = find(connection, artifact.parent_id)
        manager_id, level = parent.manager_id, parent.level + 1
    if level > _DEEPEST:
        raise ArtifactTooDeep(f"A tree of artifacts has at most {_DEEPEST} levels below its root.")
    row = {
        **{name: getattr(artifact, name) for name in ("id", "model_name", "version", "job_id", "config_id")},
        "manager_id": manager_id,
        "parent": artifact.parent_id,
        "level": level,
        "sealed": sealed,
        "created_by": by,
        "created_at": artifact.created_at,
        "updated_at": artifact.updated_at,
    }
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(m.ml_artifacts).values(row))
    except sa.exc.IntegrityError:
        raise _exists(artifact.id) from None
    return find(connection, artifact.id)


def find(connection: sa.Connection, artifact_id: str) -> MlArtifact:
    """Raises ArtifactNotFound."""
    row = connection.execute(_SELECT.where(m.ml_artifacts.c.id == artifact_id)).one_or_none()
    if row is None:
        raise ArtifactNotFound(f"There is no artifact '{artifact_id}'.", artifact=artifact_id)
    return _artifact(row)


def payload_name(artifact_id: str) -> str:
    """What the data of an artifact is sealed under."""
    return f"artifacts/{artifact_id}"


def _exists(artifact_id: str) -> ArtifactExists:
    return ArtifactExists(f"There is an artifact '{artifact_id}' already.", artifact=artifact_id)


def _refuse_parents(connection: sa.Connection, artifact_id: str) -> None:
    query = sa.select(m.ml_artifacts.c.id).where(m.ml_artifacts.c.parent == artifact_id).limit(1)
    if connection.scalar(query) is not None:
        raise _has_children(artifact_id)


def _has_children(artifact_id: str) -> ArtifactHasChildren:
    return ArtifactHasChildren("There are artifacts below this one: delete those first.", artifact=artifact_id)


def _node(artifact: MlArtifact, below: dict[str, list[MlArtifact]]) -> Node:
    return Node(artifact, [_node(child, below) for child in below.get(artifact.id, ())])


_COLUMNS = ("id", "manager_id", "parent", "level", "model_name", "version", "job_id", "config_id")
_SELECT = sa.select(*(m.ml_artifacts.c[name] for name in (*_COLUMNS, "created_at", "updated_at")))


def _artifact(row: Sequence[Any]) -> MlArtifact:
    return MlArtifact(*row)
