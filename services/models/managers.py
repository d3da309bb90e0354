"""Managers: who owns a key-encryption key and a dedup domain."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from services.models import condemned
from services.models import tables as t
from services.models.chunk_keys import Domain
from services.models.key_client import KeyClient, KeyMissing
from services.models.public_keys import PUBLIC_KEK
from services.shared.database import Database
from services.shared.errors import AlreadyExists, NotFound
from services.shared.ids import new_id

DEFAULT_MANAGER = "default"
# In front of the ids of managers' key-encryption keys; a ULID, its age, stands at their end.
KEKS = "managers/"

_SELECT = sa.select(t.managers.c.id, t.managers.c.kek_id, t.managers.c.domain_key_id)
# Asked at every request: building the statement anew would cost as much as running it.
_BY_ID = _SELECT.where(t.managers.c.id == sa.bindparam("id"))


class ManagerNotFound(NotFound):
    """There is no manager of that id."""

    reason = "MANAGER_NOT_FOUND"


class ManagerExists(AlreadyExists):
    """There is a manager of that id."""

    reason = "MANAGER_EXISTS"


@dataclass(frozen=True)
class Manager:
    """A manager and the ids of its keys."""

    id: str
    kek_id: str
    domain_key_id: str

    @property
    def encrypted(self) -> bool:
        """Whether its keys are secret (`public_keys`)."""
        return self.kek_id != PUBLIC_KEK


class Managers:
    """The managers and their keys."""

    def __init__(self, database: Database, keys: KeyClient, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock

    def get(self, manager_id: str) -> Manager:
        """Raises ManagerNotFound."""
        found = self._find(manager_id)
        if found is None:
            raise missing(manager_id)
        return found

    def domain(self, manager: Manager) -> Domain:
        """The manager's dedup domain. Use it for one request: the secret in it may be destroyed."""
        return Domain(self._keys.unwrap(manager.domain_key_id, domain_context(manager.id)), manager.domain_key_id)

    def ensure(self, manager_id: str) -> Manager:
        """The manager, created with its keys if it is not there."""
        try:
            return self._find(manager_id) or self.create(manager_id)
        except ManagerExists:
            return self.get(manager_id)

    def create(self, manager_id: str, **settings: str | int | bool) -> Manager:
        """Creates a manager with its keys; `settings` are columns of its row. Raises ManagerExists.

        Of several who do this at a time one wins, and the others destroy the keys they made. A crash in between leaves
        keys that collection finds. The key-encryption key's id is new, because a manager of the same id may have been
        deleted, and that one's key must not come back.
        """
        if self._find(manager_id) is not None:
            raise _taken(manager_id)
        kek_id = f"{KEKS}{manager_id}/{new_id()}" if settings.get("enable_encryption", True) else PUBLIC_KEK
        self._keys.create_kek(kek_id)
        secret = self._keys.generate(kek_id, domain_context(manager_id))
        with self._database.write() as connection:
            t.hold_references(connection)
            made = [condemned.name_of_kek(kek_id), condemned.name_of_key(secret.key_id)]
            condemned.refuse_condemned(connection, made)
            row = {
                "id": manager_id,
                "kek_id": kek_id,
                "domain_key_id": secret.key_id,
                "created_at": self._clock(),
                **settings,
            }
            t.insert_missing(connection, t.managers, [row])
        manager = self.get(manager_id)
        if manager.domain_key_id != secret.key_id:
            self._keys.destroy_kek(kek_id)
            raise _taken(manager_id)
        return manager

    @contextmanager
    def unless_deleted(self, manager: Manager) -> Iterator[None]:
        """Keys of a manager that is deleted meanwhile are destroyed, not lost: says so by ManagerNotFound."""
        try:
            yield
        except KeyMissing:
            if self.get(manager.id).kek_id != manager.kek_id:  # there is another by that name
                raise missing(manager.id) from None
            raise

    def _find(self, manager_id: str) -> Manager | None:
        with self._database.read() as connection:
            row = connection.execute(_BY_ID, {"id": manager_id}).mappings().one_or_none()
        return None if row is None else _manager(row)


def hold(connection: sa.Connection, manager_id: str, kek_id: str = "") -> None:
    """Keeps the manager from being deleted before the transaction ends.

    Raises ManagerNotFound if it is not there, or if it is another of that id, with another key-encryption key.
    """
    query = sa.select(t.managers.c.kek_id).where(t.managers.c.id == manager_id).with_for_update(read=True)
    found = connection.scalar(query)
    if found is None or (kek_id and found != kek_id):
        raise missing(manager_id)


def missing(manager_id: str) -> ManagerNotFound:
    return ManagerNotFound(f"There is no manager '{manager_id}'.", manager=manager_id)


def domain_key_id(connection: sa.Connection, manager_id: str) -> str:
    """The id of the manager's current domain secret. Raises ManagerNotFound."""
    row = connection.execute(_BY_ID, {"id": manager_id}).mappings().one_or_none()
    if row is None:
        raise missing(manager_id)
    return _manager(row).domain_key_id


def domain_context(manager_id: str) -> str:
    """What the secrets of a manager's dedup domains are bound to."""
    return f"managers/{manager_id}/domain-secret"


def data_key_context(manager_id: str, version_uid: str) -> str:
    """What the data key of a version is bound to."""
    return f"managers/{manager_id}/versions/{version_uid}/data-key"


def _taken(manager_id: str) -> ManagerExists:
    return ManagerExists(f"There is a manager '{manager_id}' already: take another id.", manager=manager_id)


def _manager(row: sa.RowMapping) -> Manager:
    return Manager(row["id"], row["kek_id"], row["domain_key_id"])
