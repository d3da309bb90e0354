"""Deletion in the primary alone: a version whose weights live on in the replicas."""

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from services.models import packs, primary_copies, versions
from services.models import tables as t
from services.models.replication import ReplicatedStore
from services.models.stores.store import ObjectNotFound, StoreUnavailable
from services.models.versions import LATEST, Version, Versions
from services.shared.database import Database
from services.shared.errors import FailedPrecondition, InvalidArgument


class NoReplica(FailedPrecondition):
    """There is one store alone."""

    reason = "NO_REPLICA"


class ReplicasBehind(FailedPrecondition):
    """No replica has all of the version yet."""

    reason = "REPLICAS_BEHIND"


class PrimaryDeletion:
    """Deletes weights in the primary."""

    def __init__(
        self, database: Database, stores: ReplicatedStore, versions: Versions, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._stores = stores
        self._versions = versions
        self._clock = clock

    def delete(self, manager_id: str, model_name: str, version: str) -> Version:
        """Removes from the primary what no other version there needs; the version can be read as before.

        Raises NoReplica, ReplicasBehind, and as `Versions.find`; InvalidArgument for `latest`.
        """
        if version == LATEST:
            raise InvalidArgument("Name the version to delete: `latest` is refused here.", reason="NAME_RESERVED")
        if not self._stores.replicas:
            raise NoReplica("There is no replica: this would delete the weights everywhere.")
        found = self._versions.find(manager_id, model_name, version)
        with self._database.read() as connection:
            sizes = _objects(connection, found)
        for name, size in sizes.items():
            if not self._in_replica(name, size):
                raise ReplicasBehind("No replica has all of this version yet: wait, or run: strongroom admin sync")
        with self._database.write() as connection:
            t.hold_references(connection, removing=True)
            versions.hold(connection, found)
            row = {"version": found.id, "deleted_at": self._clock()}
            t.insert_missing(connection, t.primary_deletions, [row])
            unneeded = [name for name in sizes if primary_copies.unwanted(connection, name)]
        for name in unneeded:
            self._remove(name)
        return found

    def _in_replica(self, name: str, size: int | None) -> bool:
        for member in self._stores.replicas:
            try:
                if member.store.size(name) == size or size is None:
                    return True
            except (ObjectNotFound, StoreUnavailable):
                continue
        return False

    def _remove(self, name: str) -> None:
        try:
            self._stores.primary.store.delete(name)
        except StoreUnavailable:
            return  # what the primary should not have, its next repair removes


def _objects(connection: sa.Connection, version: Version) -> dict[str, int | None]:
    """What the version consists of, with the size if the index knows it."""
    used = sa.select(t.chunks.c.pack).join(t.version_chunks, t.version_chunks.c.chunk == t.chunks.c.id)
    listed = sa.select(t.packs.c.pack_id, t.packs.c.size)
    rows = connection.execute(listed.where(t.packs.c.id.in_(used.where(t.version_chunks.c.version == version.id))))
    return {version.manifest_key: None} | {packs.pack_key(row.pack_id): row.size for row in rows}
