"""What artifacts depend on: the graph, and what it costs to download."""

from dataclasses import dataclass

import sqlalchemy as sa

from services.models import addresses, artifacts, versions
from services.models import catalog_tables as c
from services.models import tables as t
from services.models.addresses import StoredVersion
from services.models.artifact_access import Sight
from services.models.artifacts import Artifact, ArtifactData
from services.shared.database import Database
from services.shared.errors import DomainError, FailedPrecondition, NotFound

# For each of them all that it needs is added up.
MOST_NODES = 250

_MB = 1_000_000


class ArtifactSizeUnknown(FailedPrecondition):
    """Nobody has said how large the artifact is."""

    reason = "ARTIFACT_SIZE_UNKNOWN"


class LineageTooLarge(FailedPrecondition):
    """More artifacts than a cost is computed over."""

    reason = "LINEAGE_TOO_LARGE"


@dataclass(frozen=True)
class Dependency:
    """`needed` is needed by `by`: ids of artifacts."""

    needed: str
    by: str
    relationship: str


@dataclass(frozen=True)
class Cost:
    """In MB of 10^6 bytes: of an artifact alone, and with all that it needs."""

    standalone: float
    total: float


class ArtifactGraph:
    """Walks along dependencies, as far as the caller may read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def lineage(self, type_: str, id_: str, sight: Sight) -> tuple[list[Artifact], list[Dependency]]:
        """The artifact and all it needs, near ones first; at most MOST_NODES. Raises ArtifactNotFound."""
        with self._database.read() as connection:
            return _walk(connection, artifacts.find(connection, type_, id_), sight)

    def cost(self, type_: str, id_: str, sight: Sight) -> dict[str, Cost]:
        """By id, the artifact first: its cost and those of all that it needs.

        Raises ArtifactNotFound, ArtifactSizeUnknown, LineageTooLarge.
        """
        with self._database.read() as connection:
            nodes, edges = _walk(connection, artifacts.find(connection, type_, id_), sight)
            if len(nodes) == MOST_NODES:
                raise LineageTooLarge(f"It needs {MOST_NODES} artifacts or more, which is more than is added up.")
            sizes = {node.id: size_of(connection, node, sight) for node in nodes}
        needs: dict[str, list[str]] = {node.id: [] for node in nodes}
        for edge in edges:
            needs[edge.by].append(edge.needed)
        return {id_: Cost(sizes[id_] / _MB, sum(map(sizes.__getitem__, _closure(id_, needs))) / _MB) for id_ in sizes}

    def own_cost(self, type_: str, id_: str, sight: Sight) -> Cost:
        """Of the artifact alone. Raises ArtifactNotFound, ArtifactSizeUnknown."""
        with self._database.read() as connection:
            size = size_of(connection, artifacts.find(connection, type_, id_), sight)
        return Cost(size / _MB, size / _MB)

    def readable_needs(self, artifact: Artifact, sight: Sight) -> dict[str, str]:
        """What the artifact needs, as far as the caller may read it: id → relationship."""
        if not artifact.data.needs:
            return {}
        query = sa.select(c.artifacts.c.id, c.artifacts.c.type).where(c.artifacts.c.id.in_(list(artifact.data.needs)))
        with self._database.read() as connection:
            readable = {row.id for row in connection.execute(query) if sight.artifact(row.type, row.id)}
        return {id_: kind for id_, kind in artifact.data.needs.items() if id_ in readable}

    def size(self, artifact: Artifact, sight: Sight) -> int:
        """In bytes; 0 if it is not known."""
        with self._database.read() as connection:
            try:
                return size_of(connection, artifact, sight)
            except DomainError:
                return 0


def size_of(connection: sa.Connection, artifact: Artifact, sight: Sight) -> int:
    """In bytes: what a version that is stored here has, else what was said.

    A version that the caller may not read is one that is not there. Raises ArtifactSizeUnknown.
    """
    size = artifact.data.size
    stored = addresses.stored_version(artifact.data.url)
    if stored is not None:
        size = _stored_size(connection, stored) if sight.model(stored.manager_id, stored.model_name) else 0
    if not size:
        message = f"Nobody has said how large artifact {artifact.id} is. Update it with its size_bytes."
        raise ArtifactSizeUnknown(message, artifact=artifact.id)
    return size


def _stored_size(connection: sa.Connection, stored: StoredVersion) -> int:
    try:
        return versions.find(connection, stored.manager_id, stored.model_name, stored.version).size
    except NotFound:
        return 0


def _walk(connection: sa.Connection, start: Artifact, sight: Sight) -> tuple[list[Artifact], list[Dependency]]:
    a, d = c.artifacts.c, c.artifact_dependencies.c
    columns = (d.artifact, d.relationship, a.id, a.type, a.name, a.url, a.size, a.etag)
    query = sa.select(*columns).join(c.artifacts, a.id == d.needs)
    found, edges = {start.id: start}, []
    level = [start.id]
    while level:
        following = []
        for batch in t.batches(level):
            rows = connection.execute(query.where(d.artifact.in_(batch)).order_by(a.id).limit(10 * MOST_NODES))
            for row in rows:
                if not sight.artifact(row.type, row.id) or (row.id not in found and len(found) == MOST_NODES):
                    continue
                edges.append(Dependency(row.id, row.artifact, row.relationship))
                if row.id not in found:
                    found[row.id] = Artifact(row.id, row.type, row.name, ArtifactData(row.url, row.size), row.etag)
                    following.append(row.id)
        level = following
    return list(found.values()), edges


def _closure(id_: str, needs: dict[str, list[str]]) -> set[str]:
    reached, waiting = {id_}, [id_]
    while waiting:
        new = set(needs[waiting.pop()]) - reached
        reached |= new
        waiting += new
    return reached
