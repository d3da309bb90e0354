"""The registry of artifacts: models, datasets and code by their addresses, and what they depend on."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.models import addresses, etags
from services.models import catalog_tables as c
from services.models import tables as t
from services.models.artifact_access import Sight
from services.models.text_search import ROWS, SEARCHED, Budget, TextFilter
from services.shared.database import Database
from services.shared.errors import AlreadyExists, InvalidArgument, NotFound

TYPES = ("model", "dataset", "code")


class ArtifactNotFound(NotFound):
    """There is no artifact of that type and id, or none that is looked for."""

    reason = "ARTIFACT_NOT_FOUND"


class ArtifactExists(AlreadyExists):
    """An artifact of that type and address is registered."""

    reason = "ARTIFACT_EXISTS"


class ArtifactInvalid(InvalidArgument):
    """What the request says about an artifact contradicts itself, or what is known."""

    reason = "ARTIFACT_INVALID"


@dataclass(frozen=True)
class ArtifactData:
    """What is said about an artifact. `size` in bytes, 0 if unknown; `needs`: id of another artifact → relationship."""

    url: str
    size: int = 0
    readme: str = field(default="", repr=False)
    needs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """An artifact. In a listing `data` has the address and the size alone."""

    id: str
    type: str
    name: str
    data: ArtifactData
    etag: str


class Artifacts:
    """Registers and finds artifacts.

    Args:
        monotonic: seconds that only grow.
        new_id: makes up ids that grow, and etags: 26 letters and digits that never came before.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._new_id = new_id

    def register(self, type_: str, name: str, data: ArtifactData, by: str, sight: Sight) -> Artifact:
        """Adds an artifact.

        Raises AddressInvalid, ArtifactInvalid, ArtifactExists, and ArtifactNotFound for what it needs.
        """
        addresses.check(data.url)
        name = name or addresses.name_in(data.url)
        if not name.isprintable():
            raise ArtifactInvalid("A name is printable.")
        made = Artifact(self._new_id(), type_, name, data, self._new_id())
        row = {
            "id": made.id,
            "type": type_,
            "name": name,
            "created_at": self._clock(),
            "created_by": by,
            **_values(made),
        }
        with self._database.write() as connection:
            _insert(connection, row)
            _replace_needs(connection, made, sight)
        return made

    def get(self, type_: str, id_: str) -> Artifact:
        """Raises ArtifactNotFound."""
        with self._database.read() as connection:
            return find(connection, type_, id_)

    def update(
        self, type_: str, id_: str, name: str, data: ArtifactData, sight: Sight, *, expected: str = ""
    ) -> Artifact:
        """Replaces an artifact's data; a `name` must be the one it has. Raises as `register`, and EtagMismatch."""
        addresses.check(data.url)
        with self._database.write() as connection:
            now = find(connection, type_, id_, lock=True)
            etags.check(expected, now.etag)
            if name not in ("", now.name):
                raise ArtifactInvalid(f"The artifact's name is '{now.name}', and names stay.")
            changed = replace(now, data=data, etag=self._new_id())
            change = sa.update(c.artifacts).where(c.artifacts.c.id == id_).values(_values(changed))
            try:
                with connection.begin_nested():
                    connection.execute(change)
            except sa.exc.IntegrityError:
                raise _exists(type_) from None
            _replace_needs(connection, changed, sight)
        return changed

    def delete(self, type_: str, id_: str, *, expected: str = "") -> Artifact:
        """Removes an artifact. Raises ArtifactNotFound, EtagMismatch."""
        with self._database.write() as connection:
            found = find(connection, type_, id_, lock=True)
            etags.check(expected, found.etag)
            connection.execute(sa.delete(c.artifacts).where(c.artifacts.c.id == id_))
        return found

    def search(
        self,
        named: Mapping[str, Sequence[str]] | None,
        text: TextFilter,
        page_size: int,
        page_token: str,
        sight: Sight,
    ) -> tuple[list[Artifact], str]:
        """A page of artifacts by id, and the token of the next; looks at a bounded number of them.

        Args:
            named: type → names to look for; None: all types and names, and a type without names: all of its.
        """
        size = page_size or 100
        found: list[Artifact] = []
        token, budget = page_token, Budget(self._monotonic)
        with self._database.read() as connection:
            while True:
                query = _search(named).where(c.artifacts.c.id > token).order_by(c.artifacts.c.id).limit(ROWS)
                rows = connection.execute(query).all()
                for row in rows:
                    if len(found) == size:
                        return found, token
                    token = row.id
                    if sight.artifact(row.type, row.id) and text.finds(row.name, row.readme):
                        found.append(Artifact(row.id, row.type, row.name, ArtifactData(row.url, row.size), row.etag))
                    if budget.spent():
                        return found, token
                if len(rows) < ROWS:
                    return found, ""


def find(connection: sa.Connection, type_: str, id_: str, *, lock: bool = False) -> Artifact:
    """Raises ArtifactNotFound."""
    query = sa.select(c.artifacts).where(c.artifacts.c.id == id_, c.artifacts.c.type == type_)
    row = connection.execute(query.with_for_update(key_share=True) if lock else query).one_or_none()
    if row is None:
        raise missing(id_)
    own = c.artifact_dependencies.c
    needs = connection.execute(sa.select(own.needs, own.relationship).where(own.artifact == id_).order_by(own.needs))
    data = ArtifactData(row.url, row.size, row.readme, {row.needs: row.relationship for row in needs})
    return Artifact(row.id, row.type, row.name, data, row.etag)


def missing(id_: str) -> ArtifactNotFound:
    """The error for an artifact that is not there."""
    return ArtifactNotFound(f"There is no such artifact as {id_}.", artifact=id_)


def _exists(type_: str) -> ArtifactExists:
    return ArtifactExists(f"There is a {type_} of this address already.", type=type_)


def _values(artifact: Artifact) -> dict[str, Any]:
    data = artifact.data
    digest = hashlib.sha256(f"{artifact.type}\n{data.url}".encode()).digest()
    return {"url": data.url, "digest": digest, "size": data.size, "readme": data.readme, "etag": artifact.etag}


def _insert(connection: sa.Connection, row: Mapping[str, Any]) -> None:
    """Raises ArtifactExists."""
    t.insert_missing(connection, c.artifacts, [row])
    # Two at a time: the digest decides, and whoever is second finds that it is not there by its id.
    if connection.scalar(sa.select(c.artifacts.c.id).where(c.artifacts.c.id == row["id"])) is None:
        raise _exists(row["type"])


def _replace_needs(connection: sa.Connection, artifact: Artifact, sight: Sight) -> None:
    """What the caller may not read is not there. Raises ArtifactNotFound, ArtifactInvalid."""
    wanted = artifact.data.needs
    if artifact.id in wanted:
        raise ArtifactInvalid("An artifact does not depend on itself.")
    # Locked, so that none is gone before the reference to it is there.
    query = sa.select(c.artifacts.c.id, c.artifacts.c.type).where(c.artifacts.c.id.in_(list(wanted)))
    rows = connection.execute(query.with_for_update(read=True, key_share=True))
    there = {row.id for row in rows if sight.artifact(row.type, row.id)}
    for id_ in wanted:
        if id_ not in there:
            raise missing(id_)
    own = c.artifact_dependencies
    connection.execute(sa.delete(own).where(own.c.artifact == artifact.id))
    added = [{"artifact": artifact.id, "needs": id_, "relationship": kind} for id_, kind in sorted(wanted.items())]
    t.insert_missing(connection, own, added)


def _search(named: Mapping[str, Sequence[str]] | None) -> sa.Select[Any]:
    own = c.artifacts.c
    readme = sa.func.substr(own.readme, 1, SEARCHED).label("readme")
    query = sa.select(own.id, own.type, own.name, own.url, own.size, own.etag, readme)
    if named is None:
        return query
    kinds = [sa.and_(own.type == kind, own.name.in_(names) if names else sa.true()) for kind, names in named.items()]
    return query.where(sa.or_(sa.false(), *kinds))
