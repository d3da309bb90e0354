"""Deletes a manager with everything in it."""

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from services.models import chunk_index, condemned, notes
from services.models import tables as t
from services.models.managers import DEFAULT_MANAGER, missing
from services.models.public_keys import PUBLIC_KEK
from services.shared.database import Database
from services.shared.errors import FailedPrecondition


class ManagerPermanent(FailedPrecondition):
    """The manager is one that is always there."""

    reason = "MANAGER_PERMANENT"


class ManagerRemoval:
    """Deletes managers.

    Args:
        remove: removes condemned objects and keys, as far as it can.
    """

    def __init__(
        self, database: Database, remove: Callable[[list[str]], object], clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._remove = remove
        self._clock = clock

    def delete(self, manager_id: str, *, allow_in_use: bool = False) -> None:
        """Deletes the manager, its models and their keys.

        It is gone with the transaction, whole. The removal of manifests and keys is noted in it, so that collection
        makes up for what fails here. Raises ManagerNotFound, ManagerPermanent; VersionInUse unless that is allowed.
        """
        if manager_id == DEFAULT_MANAGER:
            raise ManagerPermanent("The default manager is always there. Delete its versions instead.")
        now = self._clock()
        with self._database.write() as connection:
            t.hold_references(connection, removing=True)
            names = _names(connection, manager_id)
            if not allow_in_use:
                notes.refuse_any_in_use(connection, manager_id)
            _delete_rows(connection, manager_id)
            chunk_index.bury_empty_packs(connection, now)
            condemned.condemn(connection, names, now)
        self._remove(names)
        self._database.forget_deleted()


def _names(connection: sa.Connection, manager_id: str) -> list[str]:
    """The names of the manager's manifests and keys. Raises ManagerNotFound."""
    query = sa.select(t.managers.c.kek_id).where(t.managers.c.id == manager_id).with_for_update()
    kek_id = connection.scalar(query)
    if kek_id is None:
        raise missing(manager_id)
    # With it goes every key under it: domain secrets, data keys, those of open uploads.
    names = [condemned.name_of_kek(kek_id)] if kek_id != PUBLIC_KEK else []
    c = t.versions.c
    return names + list(connection.scalars(sa.select(c.manifest_key).where(c.model_id.in_(_models(manager_id)))))


def _delete_rows(connection: sa.Connection, manager_id: str) -> None:
    """All of the manager's rows, those that refer to others first."""
    versions = sa.select(t.versions.c.id).where(t.versions.c.model_id.in_(_models(manager_id)))
    uploads = sa.select(t.uploads.c.id).where(t.uploads.c.manager_id == manager_id)
    for statement in (
        sa.delete(t.upload_chunks).where(t.upload_chunks.c.upload.in_(uploads)),
        sa.delete(t.uploads).where(t.uploads.c.manager_id == manager_id),
        sa.delete(t.manager_paths).where(t.manager_paths.c.manager_id == manager_id),
        sa.delete(t.version_chunks).where(t.version_chunks.c.version.in_(versions)),
        sa.delete(t.versions).where(t.versions.c.model_id.in_(_models(manager_id))),
        sa.delete(t.models).where(t.models.c.manager_id == manager_id),
        sa.delete(t.chunks).where(t.chunks.c.manager_id == manager_id),
        sa.delete(t.rotations).where(t.rotations.c.manager_id == manager_id),
        sa.delete(t.reencryptions).where(t.reencryptions.c.manager_id == manager_id),
        sa.delete(t.managers).where(t.managers.c.id == manager_id),
    ):
        connection.execute(statement)


def _models(manager_id: str) -> sa.Select[tuple[int]]:
    return sa.select(t.models.c.id).where(t.models.c.manager_id == manager_id)
