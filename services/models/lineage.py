"""Lineage: what a version was made from, and what was made from it."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from services.models import addresses, versions
from services.models import catalog_tables as c
from services.models import tables as t
from services.models.annotations import Annotations
from services.models.managers import Managers
from services.models.versions import Version
from services.shared.database import Database
from services.shared.errors import InvalidArgument

MOST_STEPS = 16
MOST_NODES = 1000

# Whether the caller may read a model of a manager.
MayRead = Callable[[str, str], bool]


class ParentInvalid(InvalidArgument):
    """A parent that is neither a version nor an address, or the version itself."""

    reason = "PARENT_INVALID"


@dataclass(frozen=True)
class ParentName:
    """A parent as a caller names it: a version, or an address."""

    manager_id: str
    model_name: str
    version: str
    uri: str
    relationship: str


@dataclass(frozen=True)
class Node:
    """`id` is a ULID of a version that is there, else made of what it was called, or of the address."""

    id: str
    manager_id: str
    model_name: str
    version: str
    uri: str = ""
    deleted: bool = False


@dataclass(frozen=True)
class Edge:
    """`source` was used to make `target`."""

    source: str
    target: str
    relationship: str


@dataclass(frozen=True)
class Graph:
    """What was found; `truncated` if there is more."""

    nodes: list[Node]
    edges: list[Edge]
    truncated: bool = False


class Lineage:
    """Writes and reads lineage."""

    def __init__(self, database: Database, managers: Managers, annotations: Annotations) -> None:
        self._database = database
        self._managers = managers
        self._annotations = annotations

    def set_parents(
        self,
        manager_id: str,
        model_name: str,
        version: str,
        parents: Sequence[ParentName],
        may_read: MayRead,
        *,
        expected: str = "",
    ) -> str:
        """Replaces the parents of a version, and returns the version's etag from then on.

        A parent that the caller may not read is as little there as one that is not there at all. Raises ParentInvalid,
        AddressInvalid, EtagMismatch, ManagerNotFound, ModelNotFound, VersionNotFound.
        """
        for parent in parents:
            _check(parent)
        self._managers.get(manager_id)
        with self._database.write() as connection:
            versions.lock_model(connection, manager_id, model_name)
            found = versions.find(connection, manager_id, model_name, version)
            etag = self._annotations.touch(connection, found.id, expected)
            rows = [_row(connection, found, parent, may_read) for parent in parents]
            connection.execute(sa.delete(c.version_parents).where(c.version_parents.c.version == found.id))
            if rows:
                connection.execute(sa.insert(c.version_parents), rows)
        return etag

    def graph(self, manager_id: str, model_name: str, version: str, may_read: MayRead) -> Graph:
        """All that the version comes from, and all that comes from it, as far as the caller may read on the way.

        Raises ManagerNotFound, ModelNotFound, VersionNotFound.
        """
        self._managers.get(manager_id)
        with self._database.read() as connection:
            found = versions.find(connection, manager_id, model_name, version)
            walk = _Walk(connection, may_read, found)
            walk.go(c.version_parents.c.version, "parent", [found.id])
            walk.go(c.version_parents.c.parent, "version", [found.id])
        return Graph(list(walk.nodes.values()), sorted(walk.edges, key=str), walk.truncated)


class _Walk:
    """From version to version, one statement a step."""

    def __init__(self, connection: sa.Connection, may_read: MayRead, start: Version) -> None:
        self._connection = connection
        self._may_read = may_read
        self._versions = {start.id: start}
        self.nodes: dict[str, Node] = {start.uid: _node(start)}
        self.edges: set[Edge] = set()
        self.truncated = False

    def go(self, here: sa.Column[Any], other: str, numbers: list[int]) -> None:
        """Follows the edges whose column `here` is one of the numbers to the versions in the column `other`."""
        seen = set(numbers)
        for _ in range(MOST_STEPS):
            rows = self._edges(here, numbers)
            self._read_versions(rows)
            reached = [row[other] for row in rows if self._add(row)]
            numbers = list(dict.fromkeys(number for number in reached if number is not None and number not in seen))
            seen.update(numbers)
            if not numbers:
                return
        self.truncated = True

    def _edges(self, here: sa.Column[Any], numbers: list[int]) -> Sequence[sa.RowMapping]:
        rows: list[sa.RowMapping] = []
        for batch in t.batches(numbers):
            query = sa.select(c.version_parents).where(here.in_(batch)).order_by(c.version_parents.c.id)
            rows += self._connection.execute(query.limit(MOST_NODES + 1 - len(rows))).mappings()
        self.truncated |= len(rows) > MOST_NODES
        return rows[:MOST_NODES]

    def _read_versions(self, rows: Iterable[sa.RowMapping]) -> None:
        numbers = {number for row in rows for number in (row["version"], row["parent"]) if number is not None}
        unread = sorted(numbers - self._versions.keys())
        self._versions.update(versions.by_numbers(self._connection, unread))

    def _add(self, row: sa.RowMapping) -> bool:
        """Adds an edge and its ends, if the caller may read both and there is room."""
        ends = [self._parent(row), _node(self._versions[row["version"]])]
        if not all(end.uri or self._may_read(end.manager_id, end.model_name) for end in ends):
            return False
        new = {end.id: end for end in ends if end.id not in self.nodes}
        if len(self.nodes) + len(new) > MOST_NODES:
            self.truncated = True
            return False
        self.nodes.update(new)
        self.edges.add(Edge(ends[0].id, ends[1].id, row["relationship"]))
        return True

    def _parent(self, row: sa.RowMapping) -> Node:
        if row["parent"] is not None:
            return _node(self._versions[row["parent"]])
        if row["uri"]:
            return Node(_short(row["uri"]), "", "", "", uri=row["uri"])
        names = (row["manager_id"], row["model_name"], row["version_name"])
        return Node(_short("/".join(names)), *names, deleted=True)


def _short(text: str) -> str:
    """An id for what may be long and stands in every edge."""
    return hashlib.sha256(text.encode()).hexdigest()[:26]


def _node(version: Version) -> Node:
    return Node(version.uid, version.manager_id, version.model_name, version.name)


def _check(parent: ParentName) -> None:
    """Raises ParentInvalid, AddressInvalid."""
    named = bool(parent.model_name and parent.version)
    if named == bool(parent.uri) or (parent.uri and (parent.model_name or parent.version or parent.manager_id)):
        raise ParentInvalid("A parent is either `model_name` and `version`, or `uri`.")
    if parent.uri:
        addresses.check(parent.uri)


def _row(connection: sa.Connection, child: Version, parent: ParentName, may_read: MayRead) -> dict[str, Any]:
    """Raises ModelNotFound, VersionNotFound, ParentInvalid."""
    row = {"version": child.id, "uri": parent.uri, "relationship": parent.relationship}
    if parent.uri:
        return row | {"parent": None, "manager_id": "", "model_name": "", "version_name": ""}
    manager_id = parent.manager_id or child.manager_id
    if not may_read(manager_id, parent.model_name):
        raise versions.no_model(parent.model_name)
    found = versions.find(connection, manager_id, parent.model_name, parent.version)
    if found.id == child.id:
        raise ParentInvalid("A version is no parent of its own.")
    names = {"manager_id": manager_id, "model_name": parent.model_name, "version_name": found.name}
    return row | {"parent": found.id, **names}
