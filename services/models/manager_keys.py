"""The keys of a manager: rotated by re-wrapping.

A new version of the key-encryption key is made and every key is wrapped under it; no weights move. What a crash
interrupts is found by `resume`: the secrets service has both versions until nothing is left under the older one, so
everything stays readable at any moment, and uploads go on meanwhile. So may the deletion of the manager: nothing here
makes a key-encryption key where there is none, and what was destroyed stays so.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from services.models import tables as t
from services.models.key_client import KekDerivation, KeyClient, KeyMissing
from services.models.managers import Manager, ManagerNotFound, Managers, data_key_context, domain_context, hold, missing
from services.shared.database import Database
from services.shared.errors import FailedPrecondition, InvalidArgument
from services.shared.ids import new_id

_MAX_PASSWORD = 1024
# What was begun longer ago was interrupted.
_INTERRUPTED = timedelta(minutes=5)


class ManagerUnencrypted(FailedPrecondition):
    """The manager does not encrypt: there is no key to rotate."""

    reason = "MANAGER_NOT_ENCRYPTED"

    def __init__(self) -> None:
        super().__init__("This manager does not encrypt, so it has no key to rotate.")


class PasswordInvalid(InvalidArgument):
    """No password at all, or one too long."""

    reason = "PASSWORD_INVALID"


@dataclass(frozen=True)
class Password:
    """A password of which a key-encryption key is made, 1 to 1024 bytes of UTF-8. Raises PasswordInvalid."""

    text: str = field(repr=False)

    def __post_init__(self) -> None:
        try:
            length = len(self.text.encode())
        except UnicodeEncodeError:
            length = 0
        if not 0 < length <= _MAX_PASSWORD:
            raise PasswordInvalid(f"A password has 1 to {_MAX_PASSWORD} bytes of UTF-8.")


@dataclass(frozen=True)
class RotationReceipt:
    """What a rotation did: the versions are those of the manager's key-encryption key."""

    manager_id: str
    from_version: int
    to_version: int
    rewrapped_keys: int
    using_password: bool
    rotated_at: datetime


class ManagerKeys:
    """Rotates the keys of managers. All methods may raise KeyServiceUnavailable."""

    def __init__(self, database: Database, keys: KeyClient, managers: Managers, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._keys = keys
        self._managers = managers
        self._clock = clock

    def rotate(self, manager_id: str, password: Password | None = None, *, requested_by: str = "") -> RotationReceipt:
        """Wraps every key of the manager under a new version of its key-encryption key: random, or of a password.

        Raises ManagerUnencrypted; ManagerNotFound, also if the manager is deleted meanwhile.
        """
        manager = self._managers.get(manager_id)
        if not manager.encrypted:
            raise ManagerUnencrypted
        derivation = None if password is None else self._derivation(manager_id)
        with self._managers.unless_deleted(manager):
            rotation = self._begin(manager, requested_by, using_password=password is not None)
            step = self._keys.rotate(manager.kek_id, password.text if password else "", derivation)
            return self._complete(manager, rotation, step.to_version, step.rewrapped, finished=not step.left)

    def resume(self) -> int:
        """Completes rotations that a crash interrupted; how many. One that had made no new version did not happen."""
        began = self._clock() - _INTERRUPTED
        c = t.rotations.c
        with self._database.read() as connection:
            interrupted = sa.select(c.id, c.manager_id, c.from_version).where(c.finished_at.is_(None))
            rows = connection.execute(interrupted.where(c.started_at < began).limit(100)).all()
        for row in rows:
            # A manager that was deleted took the row with it; one whose keys are lost has nothing to complete.
            with suppress(ManagerNotFound, KeyMissing):
                if self._resumed(row.id, row.manager_id, row.from_version):
                    continue
            with self._database.write() as connection:
                connection.execute(sa.delete(t.rotations).where(c.id == row.id))
        return len(rows)

    def receipts(self, manager_id: str, limit: int = 100) -> list[RotationReceipt]:
        """The latest rotations of a manager, the newest first. Raises ManagerNotFound."""
        self._managers.get(manager_id)
        c = t.rotations.c
        query = _RECEIPT.where(c.manager_id == manager_id, c.finished_at.is_not(None))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(c.id.desc()).limit(limit))
            return [RotationReceipt(*row) for row in rows]

    def _resumed(self, rotation: str, manager_id: str, from_version: int) -> bool:
        manager = self._managers.get(manager_id)
        with self._managers.unless_deleted(manager):
            version = self._keys.current_version(manager.kek_id)
            if version != from_version:
                self._complete(manager, rotation, version, 0)
        return version != from_version

    def _begin(self, manager: Manager, requested_by: str, *, using_password: bool) -> str:
        row = {
            "id": new_id(),
            "manager_id": manager.id,
            "requested_by": requested_by,
            "using_password": using_password,
            "from_version": self._keys.current_version(manager.kek_id),
            "rewrapped_keys": 0,
            "started_at": self._clock(),
        }
        with self._database.write() as connection:
            hold(connection, manager.id, manager.kek_id)
            connection.execute(sa.insert(t.rotations).values(row))
        return str(row["id"])

    def _derivation(self, manager_id: str) -> KekDerivation:
        c = t.managers.c
        with self._database.read() as connection:
            query = sa.select(c.use_scrypt, c.hash_algorithm, c.key_iterations).where(c.id == manager_id)
            row = connection.execute(query).one_or_none()
        if row is None:
            raise missing(manager_id)
        return KekDerivation() if row.use_scrypt else KekDerivation(row.hash_algorithm, row.key_iterations)

    def _complete(
        self, manager: Manager, rotation: str, version: int, rewrapped: int, *, finished: bool = False
    ) -> RotationReceipt:
        """Re-wraps what is left, and writes the receipt."""
        contexts: dict[str, str] = {}
        while not finished:
            step = self._keys.rewrap(manager.kek_id, contexts)
            rewrapped += step.rewrapped
            contexts = self._contexts(manager, step.unbound)
            # Left for good are keys of unknown context that nothing refers to: collection destroys them.
            finished = not step.left or (not step.rewrapped and not contexts)
        changes = {"to_version": version, "rewrapped_keys": rewrapped, "finished_at": self._clock()}
        this = t.rotations.c.id == rotation
        with self._database.write() as connection:
            connection.execute(sa.update(t.rotations).where(this).values(changes))
            receipt = connection.execute(_RECEIPT.where(this)).one_or_none()
        if receipt is None:
            raise missing(manager.id)
        return RotationReceipt(*receipt)

    def _contexts(self, manager: Manager, key_ids: list[str]) -> dict[str, str]:
        """What these keys are bound to, as far as a row refers to them."""
        c = t.versions.c
        contexts = dict.fromkeys({manager.domain_key_id} & set(key_ids), domain_context(manager.id))
        with self._database.read() as connection:
            for batch in t.batches(key_ids):
                for key_id, uid in connection.execute(sa.select(c.data_key_id, c.uid).where(c.data_key_id.in_(batch))):
                    contexts[key_id] = data_key_context(manager.id, uid)
        return contexts


_c = t.rotations.c
_RECEIPT = sa.select(
    _c.manager_id, _c.from_version, _c.to_version, _c.rewrapped_keys, _c.using_password, _c.finished_at
)
