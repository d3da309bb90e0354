"""New versions of key-encryption keys, and the keys re-wrapped under them.

A rotation is one transaction for as many keys as fit into it, and steps of as many for the others: at any moment each
key is wrapped under exactly one version, which is there. What a crash interrupts the next step takes up. Nobody is
kept waiting: keys are made and unwrapped meanwhile, made ones under the newest version.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.secrets import envelope
from services.secrets.envelope import EnvelopeError
from services.secrets.keyring import Kek, KeyNotFound, Keyring, hold_kek
from services.secrets.password_keys import KekPassword
from services.secrets.tables import destroyed_keks, kek_versions, keks, keys
from services.shared.database import Database

# Keys of one transaction: so long others wait to write.
STEP = 20_000
# Told of the keys whose context is not known.
_TOLD = 1000


@dataclass(frozen=True)
class Step:
    """What a step has done; `left` keys are under older versions, of which `unbound` are the first without context."""

    from_version: int
    version: int
    rewrapped: int
    left: int
    unbound: Sequence[str]


class KekRotation:
    """Rotates and destroys KEKs."""

    def __init__(self, database: Database, keyring: Keyring, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock

    def rotate(self, owner: str, kek_id: str, password: KekPassword | None = None) -> Step:
        """Makes a new version, random or of the password, and re-wraps keys under it. Raises KekNotFound."""
        # Derived before the transaction: it takes a fraction of a second.
        new_key, derivation = (envelope.new_key(), "") if password is None else password.derive()
        with self._database.write() as connection:
            old = self._keyring.hold_current(connection, owner, kek_id)
            self._keyring.add_version(connection, owner, kek_id, old.version + 1, new_key, derivation)
            step = self._rewrap(connection, owner, kek_id, old.version, {})
        self._database.forget_deleted()
        return step

    def rewrap(self, owner: str, kek_id: str, contexts: Mapping[str, str]) -> Step:
        """Re-wraps what is left under older versions; `contexts` by key id, where they are not known here."""
        with self._database.write() as connection:
            current = self._keyring.hold_current(connection, owner, kek_id)
            step = self._rewrap(connection, owner, kek_id, current.version, contexts)
        self._database.forget_deleted()
        return step

    def destroy(self, owner: str, kek_id: str) -> int:
        """Deletes a KEK and every key under it; how many those were. No KEK gets this id again."""
        with self._database.write() as connection:
            hold_kek(connection, owner, kek_id)
            of_kek = sa.and_(keys.c.owner == owner, keys.c.kek_id == kek_id)
            # First the KEK: whoever is about to make a key under it holds it.
            connection.execute(
                sa.select(keks.c.version).where(keks.c.owner == owner, keks.c.id == kek_id).with_for_update()
            )
            destroyed = connection.execute(sa.delete(keys).where(of_kek)).rowcount
            versions = sa.and_(kek_versions.c.owner == owner, kek_versions.c.kek_id == kek_id)
            connection.execute(sa.delete(kek_versions).where(versions))
            connection.execute(sa.delete(keks).where(keks.c.owner == owner, keks.c.id == kek_id))
            d = destroyed_keks.c
            if connection.execute(sa.select(d.id).where(d.owner == owner, d.id == kek_id)).scalar() is None:
                gone = {"owner": owner, "id": kek_id, "destroyed_at": self._clock()}
                connection.execute(sa.insert(destroyed_keks).values(gone))
        self._database.forget_deleted()
        return destroyed

    def _rewrap(
        self, connection: Connection, owner: str, kek_id: str, from_version: int, contexts: Mapping[str, str]
    ) -> Step:
        current = self._keyring.current(connection, owner, kek_id)
        older = sa.and_(keys.c.owner == owner, keys.c.kek_id == kek_id, keys.c.kek_version < current.version)
        bound = sa.or_(keys.c.context.is_not(None), keys.c.id.in_(contexts))
        rows = connection.execute(sa.select(keys).where(older, bound).order_by(keys.c.id).limit(STEP)).all()
        changed = self._wrapped_anew(connection, rows, contexts)
        if changed:
            connection.execute(_REWRAP, changed)
        left = connection.execute(sa.select(sa.func.count()).select_from(keys).where(older)).scalar_one()
        unbound = sa.select(keys.c.id).where(older, keys.c.context.is_(None)).order_by(keys.c.id).limit(_TOLD)
        told = list(connection.scalars(unbound))
        self._drop_empty_versions(connection, owner, kek_id, current.version)
        return Step(from_version, current.version, len(changed), left, told)

    def _wrapped_anew(
        self, connection: Connection, rows: Sequence[Row[tuple[object, ...]]], contexts: Mapping[str, str]
    ) -> list[dict[str, object]]:
        opened: dict[int, Kek] = {}
        changed: list[dict[str, object]] = []
        for row in rows:
            old = opened.get(row.kek_version) or opened.setdefault(
                row.kek_version, self._keyring.kek(connection, row.owner, row.kek_id, row.kek_version)
            )
            new = opened.get(0) or opened.setdefault(0, self._keyring.current(connection, row.owner, row.kek_id))
            context = contexts[row.id] if row.context is None else row.context
            try:
                key = envelope.unseal(old.key, row.wrapped, old.aad(row.id, context))
            except EnvelopeError:
                raise KeyNotFound(row.id) from None
            wrapped = envelope.seal(new.key, key, new.aad(row.id, context))
            changed.append({"key": row.id, "wrapped_": wrapped, "version_": new.version, "context_": context})
        return changed

    @staticmethod
    def _drop_empty_versions(connection: Connection, owner: str, kek_id: str, current: int) -> None:
        """Deletes older versions that open nothing any more; values encrypted under one (`Keyring.encrypt`) keep it."""
        v = kek_versions.c
        used = sa.exists().where(keys.c.owner == v.owner, keys.c.kek_id == v.kek_id, keys.c.kek_version == v.version)
        of_kek = sa.and_(v.owner == owner, v.kek_id == kek_id, v.version < current)
        connection.execute(sa.delete(kek_versions).where(of_kek, ~v.encrypts, ~used))


_REWRAP = (
    sa.update(keys)
    .where(keys.c.id == sa.bindparam("key"))
    .values(wrapped=sa.bindparam("wrapped_"), kek_version=sa.bindparam("version_"), context=sa.bindparam("context_"))
)
