"""Re-encryptions as their owners see them: begun, shown. `reencrypt` does the work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from services.models import chunk_index, condemned, domains
from services.models import tables as t
from services.models.key_client import KeyClient
from services.models.manager_keys import ManagerUnencrypted
from services.models.managers import Manager, ManagerNotFound, Managers, domain_context
from services.models.versions import ModelNotFound
from services.shared.database import Database
from services.shared.errors import DomainError, FailedPrecondition, NotFound
from services.shared.ids import new_id

RUNNING, DONE, FAILED = "running", "done", "failed"
# Protected versions that are listed.
_TOLD = 1000


class ReencryptionNotFound(NotFound):
    """The manager has no such re-encryption."""

    reason = "REENCRYPTION_NOT_FOUND"


class ReencryptionRunning(FailedPrecondition):
    """One at a time."""

    reason = "REENCRYPTION_RUNNING"


@dataclass(frozen=True)
class Reencryption:
    """A re-encryption; `skipped` are protected versions as `model@version`."""

    id: str
    manager_id: str
    model_name: str
    state: str
    error: str
    versions_done: int
    versions_left: int
    bytes_done: int
    skipped: Sequence[str]
    started_at: datetime
    finished_at: datetime | None


class Reencryptions:
    """Begins and shows re-encryptions.

    Args:
        remove: removes condemned objects and keys, as far as it can.
        wake: tells who does the work that there is some.
    """

    def __init__(
        self,
        database: Database,
        keys: KeyClient,
        managers: Managers,
        remove: Callable[[list[str]], object],
        wake: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._keys = keys
        self._managers = managers
        self._remove = remove
        self._wake = wake
        self._clock = clock

    def start(self, manager_id: str, model_name: str, requested_by: str) -> Reencryption:
        """Opens a new dedup domain for the manager; what is not in it, of that model or of all, is to be rewritten.

        Raises ManagerNotFound, ManagerUnencrypted, ModelNotFound, ReencryptionRunning.
        """
        manager = self._managers.get(manager_id)
        if not manager.encrypted:
            raise ManagerUnencrypted
        with self._managers.unless_deleted(manager):
            secret = self._keys.generate(manager.kek_id, domain_context(manager_id))
        try:
            with self._database.write() as connection:
                job_id, unneeded = self._open_domain(connection, manager, model_name, requested_by, secret.key_id)
        except DomainError:
            self._keys.destroy([secret.key_id])
            raise
        self._remove(unneeded)
        started = self.get(manager_id, job_id)
        self._wake()
        return started

    def get(self, manager_id: str, job_id: str) -> Reencryption:
        """Raises ManagerNotFound, ReencryptionNotFound."""
        self._managers.get(manager_id)
        c = t.reencryptions.c
        with self._database.read() as connection:
            query = sa.select(t.reencryptions).where(c.id == job_id, c.manager_id == manager_id)
            row = connection.execute(query).one_or_none()
            if row is None:
                raise ReencryptionNotFound(f"There is no re-encryption '{job_id}'.", manager=manager_id)
            left = pending(manager_id, row.model_name, row.domain_key_id)
            count = connection.scalar(sa.select(sa.func.count()).select_from(left.subquery()))
            skipped = list(connection.scalars(_protected(manager_id, row.model_name)))
        return Reencryption(
            row.id,
            row.manager_id,
            row.model_name,
            row.state,
            row.error,
            row.versions_done,
            count or 0,
            row.bytes_done,
            skipped,
            row.started_at,
            row.finished_at,
        )

    def _open_domain(
        self, connection: sa.Connection, manager: Manager, model_name: str, requested_by: str, domain_key_id: str
    ) -> tuple[str, list[str]]:
        """The job's id, and names of keys that nothing needs any more."""
        now = self._clock()
        t.hold_references(connection, removing=True)
        # Not another manager by that name, whose domain would be under a key that was destroyed.
        this = sa.and_(t.managers.c.id == manager.id, t.managers.c.kek_id == manager.kek_id)
        # Locked: of two that begin at a time one sees the other.
        old = connection.scalar(sa.select(t.managers.c.domain_key_id).where(this).with_for_update())
        if old is None:
            raise ManagerNotFound(f"There is no manager '{manager.id}'.", manager=manager.id)
        _refuse_running(connection, manager.id)
        if model_name:
            _require_model(connection, manager.id, model_name)
        condemned.refuse_condemned(connection, [condemned.name_of_key(domain_key_id)])
        connection.execute(sa.update(t.managers).where(this).values(domain_key_id=domain_key_id))
        _give_up_uploads(connection, manager.id)
        row = {
            "id": new_id(),
            "manager_id": manager.id,
            "model_name": model_name,
            "requested_by": requested_by,
            "domain_key_id": domain_key_id,
            "state": RUNNING,
            "error": "",
            "versions_done": 0,
            "bytes_done": 0,
            "attempts": 0,
            "leased_until": now,
            "started_at": now,
        }
        connection.execute(sa.insert(t.reencryptions).values(row))
        unneeded = domains.unreferenced(connection, old)
        condemned.condemn(connection, unneeded, now)
        return str(row["id"]), unneeded


def pending(manager_id: str, model_name: str, domain_key_id: str) -> sa.Select[str]:
    """The uids of the versions that are not in the domain and could be, the oldest first."""
    query = sa.select(t.versions.c.uid).join(t.models).where(t.models.c.manager_id == manager_id)
    if model_name:
        query = query.where(t.models.c.name == model_name)
    c = t.versions.c
    return query.where(c.domain_key_id != domain_key_id, c.domain_key_id != c.data_key_id).order_by(c.id)


def _protected(manager_id: str, model_name: str) -> sa.Select[str]:
    c = t.versions.c
    query = sa.select(t.models.c.name + "@" + c.name).select_from(t.versions.join(t.models))
    query = query.where(t.models.c.manager_id == manager_id, c.domain_key_id == c.data_key_id)
    return (query.where(t.models.c.name == model_name) if model_name else query).order_by(c.id).limit(_TOLD)


def _refuse_running(connection: sa.Connection, manager_id: str) -> None:
    c = t.reencryptions.c
    running = connection.scalar(sa.select(c.id).where(c.manager_id == manager_id, c.state == RUNNING).limit(1))
    if running is not None:
        raise ReencryptionRunning(f"Re-encryption '{running}' of this manager is running. Wait for it.", id=running)


def _require_model(connection: sa.Connection, manager_id: str, model_name: str) -> None:
    query = sa.select(t.models.c.id).where(t.models.c.manager_id == manager_id, t.models.c.name == model_name)
    if connection.scalar(query) is None:
        raise ModelNotFound(f"There is no model '{model_name}'.", model=model_name)


def _give_up_uploads(connection: sa.Connection, manager_id: str) -> None:
    """Ends the manager's open uploads: they go into the old domain. Those with an access code have their own."""
    c = t.uploads.c
    query = sa.select(c.id).where(c.manager_id == manager_id, c.state == "open", c.protected.is_(False))
    for upload in connection.scalars(query.with_for_update()).all():
        chunk_index.release(connection, upload)
        connection.execute(sa.update(t.uploads).where(c.id == upload).values(state="aborted"))
