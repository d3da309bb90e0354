"""Key-encryption keys (KEKs), versioned and wrapped by the root key, and the keys wrapped under them.

    root key ──wraps──► KEK, version n ──wraps──► key, bound to owner, id and context

Each wrapping is bound to all that names it, so that a row moved to another place in the database opens nothing.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.secrets import envelope
from services.secrets.envelope import EnvelopeError
from services.secrets.root_generations import RootGenerations
from services.secrets.tables import destroyed_keks, hold, kek_versions, keks, keys
from services.shared.database import Database
from services.shared.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from services.shared.ids import new_id

_FORMAT = 1
# What stands before an encrypted value: format, length of the KEK's id, its version; the id follows.
_HEAD = struct.Struct(">BHi")


class KekNotFound(NotFound):
    reason = "KEK_NOT_FOUND"

    def __init__(self, kek_id: str) -> None:
        super().__init__(f"There is no key-encryption key {kek_id!r} of this service. Create it first.", kek_id=kek_id)


class KeyNotFound(NotFound):
    """Destroyed, unknown, another service's or bound to another context: which, is not told."""

    reason = "KEY_NOT_FOUND"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"There is no key {key_id!r} for this context.", key_id=key_id)


class CiphertextInvalid(InvalidArgument):
    reason = "CIPHERTEXT_INVALID"

    def __init__(self) -> None:
        super().__init__("The ciphertext or its context is not what was encrypted.")


class KekDamaged(DataLoss):
    """What is wrapped under it can't be read until the row is restored."""

    reason = "KEK_DAMAGED"

    def __init__(self, kek_id: str) -> None:
        super().__init__(f"The stored key-encryption key {kek_id!r} is damaged. Restore a backup.", kek_id=kek_id)


class KekDestroyed(FailedPrecondition):
    """Destroyed means for good: what was encrypted under this id must not seem to be readable again."""

    reason = "KEK_DESTROYED"

    def __init__(self, kek_id: str) -> None:
        super().__init__(f"The key-encryption key {kek_id!r} was destroyed. Choose another id.", kek_id=kek_id)


@dataclass(frozen=True)
class DataKey:
    """A plaintext key, and the id under which it can be unwrapped again."""

    id: str
    key: bytes = field(repr=False)
    # The KEK it was unwrapped with.
    kek_id: str = ""


@dataclass(frozen=True)
class Kek:
    """A version of a KEK, open."""

    owner: str
    id: str
    version: int
    key: bytes = field(repr=False)

    def aad(self, key_id: str, context: str) -> bytes:
        """What a key wrapped under this version is bound to."""
        return envelope.bind("key", _FORMAT, self.owner, self.id, self.version, key_id, context)


def _now() -> datetime:
    return datetime.now(UTC)


class Keyring:
    """The KEKs and wrapped keys of all services. Every method names the owner, the service that asks."""

    def __init__(self, database: Database, root_keys: RootGenerations, clock: Callable[[], datetime] = _now) -> None:
        self._database = database
        self._root_keys = root_keys
        self._clock = clock

    def create_kek(self, owner: str, kek_id: str) -> int:
        """Creates version 1 of a KEK, unless it exists. Its current version. Raises KekDestroyed."""
        with self._database.write() as connection:
            hold_kek(connection, owner, kek_id)
            d = destroyed_keks.c
            if connection.execute(sa.select(d.id).where(d.owner == owner, d.id == kek_id)).scalar() is not None:
                raise KekDestroyed(kek_id)
            current = self._current_version(connection, owner, kek_id)
            if current is not None:
                return current
            connection.execute(sa.insert(keks).values(owner=owner, id=kek_id, version=1, created_at=self._clock()))
            self.add_version(connection, owner, kek_id, 1, envelope.new_key())
            return 1

    def add_version(
        self, connection: Connection, owner: str, kek_id: str, version: int, key: bytes, derivation: str = ""
    ) -> None:
        """Makes this the current version of a KEK; `derivation` says how the key came of a password."""
        generation, root_key = self._root_keys.current(connection)
        row = {
            "owner": owner,
            "kek_id": kek_id,
            "version": version,
            "wrapped": envelope.seal(root_key, key, kek_aad(owner, kek_id, version)),
            "root_generation": generation,
            "derivation": derivation,
            "created_at": self._clock(),
        }
        connection.execute(sa.insert(kek_versions).values(row))
        this = sa.and_(keks.c.owner == owner, keks.c.id == kek_id)
        connection.execute(sa.update(keks).where(this).values(version=version))

    def generate(self, owner: str, kek_id: str, contexts: Sequence[str]) -> list[DataKey]:
        """New keys, one for each context, durable when this returns. Raises KekNotFound."""
        with self._database.write() as connection:
            return self.generate_in(connection, owner, kek_id, contexts)

    def generate_in(self, connection: Connection, owner: str, kek_id: str, contexts: Sequence[str]) -> list[DataKey]:
        """As `generate`, as a part of the caller's transaction."""
        made = [DataKey(new_id(), envelope.new_key()) for _ in contexts]
        self._insert(connection, owner, kek_id, zip(made, contexts, strict=True))
        return made

    def wrap(self, owner: str, kek_id: str, values: Sequence[tuple[str, bytes]]) -> list[str]:
        """Stores (context, key) of the caller's own as if they had been generated; their ids. Raises KekNotFound."""
        made = [(DataKey(new_id(), key), context) for context, key in values]
        with self._database.write() as connection:
            self._insert(connection, owner, kek_id, made)
        return [key.id for key, _ in made]

    def _insert(self, connection: Connection, owner: str, kek_id: str, made: Iterable[tuple[DataKey, str]]) -> None:
        kek = self.hold_current(connection, owner, kek_id, shared=True)
        now = self._clock()
        rows = [
            {
                "id": key.id,
                "owner": owner,
                "kek_id": kek_id,
                "kek_version": kek.version,
                "wrapped": envelope.seal(kek.key, key.key, kek.aad(key.id, context)),
                "context": context,
                "created_at": now,
            }
            for key, context in made
        ]
        connection.execute(sa.insert(keys), rows)

    def unwrap(self, owner: str, references: Sequence[tuple[str, str]]) -> list[DataKey]:
        """The keys of (id, context), in that order. Raises KeyNotFound for the first that can't be had."""
        with self._database.read() as connection:
            return self.unwrap_in(connection, owner, references)

    def unwrap_in(self, connection: Connection, owner: str, references: Sequence[tuple[str, str]]) -> list[DataKey]:
        """As `unwrap`, as a part of the caller's transaction."""
        wanted = sa.select(keys).where(keys.c.owner == owner, keys.c.id.in_({key_id for key_id, _ in references}))
        rows = {row.id: row for row in connection.execute(wanted)}
        opened: dict[tuple[str, int], Kek] = {}
        found = []
        for key_id, context in references:
            row = rows.get(key_id)
            if row is None:
                raise KeyNotFound(key_id)
            place = (row.kek_id, row.kek_version)
            kek = opened.get(place) or opened.setdefault(place, self.kek(connection, owner, *place))
            try:
                key = envelope.unseal(kek.key, row.wrapped, kek.aad(key_id, context))
            except EnvelopeError:
                raise KeyNotFound(key_id) from None
            found.append(DataKey(key_id, key, row.kek_id))
        return found

    def destroy(self, owner: str, key_ids: Sequence[str]) -> int:
        """Deletes wrapped keys; how many there were. What they encrypted is lost for good."""
        with self._database.write() as connection:
            destroyed = self.destroy_in(connection, owner, key_ids)
        if destroyed:
            self._database.forget_deleted()
        return destroyed

    def destroy_in(self, connection: Connection, owner: str, key_ids: Sequence[str]) -> int:
        """As `destroy`, as a part of the caller's transaction, after which it calls `Database.forget_deleted`."""
        done = connection.execute(sa.delete(keys).where(keys.c.owner == owner, keys.c.id.in_(key_ids)))
        return done.rowcount

    def list_ids(self, owner: str, kek_id: str, *, after: str, min_age_seconds: int, limit: int) -> list[str]:
        """The ids of a KEK's keys, or with an empty `kek_id` of all, in order, from behind `after`."""
        made_before = self._clock() - timedelta(seconds=min_age_seconds)
        wanted = (
            sa.select(keys.c.id)
            .where(keys.c.owner == owner, keys.c.id > after, keys.c.created_at <= made_before)
            .order_by(keys.c.id)
            .limit(limit)
        )
        if kek_id:
            wanted = wanted.where(keys.c.kek_id == kek_id)
        with self._database.read() as connection:
            return list(connection.execute(wanted).scalars())

    def list_keks(self, owner: str, *, after: str, min_age_seconds: int, limit: int) -> list[str]:
        """The ids of the owner's KEKs, in order, from behind `after`."""
        made_before = self._clock() - timedelta(seconds=min_age_seconds)
        wanted = (
            sa.select(keks.c.id)
            .where(keks.c.owner == owner, keks.c.id > after, keks.c.created_at <= made_before)
            .order_by(keks.c.id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return list(connection.execute(wanted).scalars())

    def encrypt(self, owner: str, kek_id: str, plaintext: bytes, context: str) -> bytes:
        """Encrypts a small value under the KEK's current version. Raises KekNotFound."""
        kek = self._encrypting(owner, kek_id)
        name = kek_id.encode()
        head = _HEAD.pack(_FORMAT, len(name), kek.version) + name
        return head + envelope.seal(kek.key, plaintext, _value_aad(kek, context))

    def decrypt(self, owner: str, ciphertext: bytes, context: str) -> bytes:
        """Reverses `encrypt`. Raises CiphertextInvalid."""
        head = _HEAD.size
        try:
            version_of_format, length, version = _HEAD.unpack(ciphertext[:head])
            kek_id = ciphertext[head : head + length].decode()
            if version_of_format != _FORMAT:
                raise CiphertextInvalid
            with self._database.read() as connection:
                kek = self.kek(connection, owner, kek_id, version)
            return envelope.unseal(kek.key, ciphertext[head + length :], _value_aad(kek, context))
        except (struct.error, UnicodeDecodeError, KekNotFound, EnvelopeError):
            raise CiphertextInvalid from None

    def current(self, connection: Connection, owner: str, kek_id: str) -> Kek:
        """The current version. Raises KekNotFound."""
        version = self._current_version(connection, owner, kek_id)
        if version is None:
            raise KekNotFound(kek_id)
        return self.kek(connection, owner, kek_id, version)

    def hold_current(self, connection: Connection, owner: str, kek_id: str, *, shared: bool = False) -> Kek:
        """The current version, which stays so until the transaction ends; `shared` with others who need only that."""
        held = sa.select(keks.c.version).where(keks.c.owner == owner, keks.c.id == kek_id)
        version = connection.execute(held.with_for_update(read=shared)).scalar()
        if version is None:
            raise KekNotFound(kek_id)
        return self.kek(connection, owner, kek_id, version)

    def _encrypting(self, owner: str, kek_id: str) -> Kek:
        """The current version, marked as one that opens values: those are elsewhere, so it is kept for good."""
        v = kek_versions.c
        with self._database.read() as connection:
            kek = self.current(connection, owner, kek_id)
            this = sa.and_(v.owner == owner, v.kek_id == kek_id, v.version == kek.version)
            if connection.execute(sa.select(v.encrypts).where(this)).scalar():
                return kek
        with self._database.write() as connection:
            kek = self.hold_current(connection, owner, kek_id, shared=True)
            this = sa.and_(v.owner == owner, v.kek_id == kek_id, v.version == kek.version)
            connection.execute(sa.update(kek_versions).where(this).values(encrypts=True))
        return kek

    @staticmethod
    def _current_version(connection: Connection, owner: str, kek_id: str) -> int | None:
        wanted = sa.select(keks.c.version).where(keks.c.owner == owner, keks.c.id == kek_id)
        return connection.execute(wanted).scalar()

    def kek(self, connection: Connection, owner: str, kek_id: str, version: int) -> Kek:
        """A version, open. Raises KekNotFound, KekDamaged, RootKeyUnavailable."""
        wanted = sa.select(kek_versions.c.wrapped, kek_versions.c.root_generation).where(
            kek_versions.c.owner == owner, kek_versions.c.kek_id == kek_id, kek_versions.c.version == version
        )
        row = connection.execute(wanted).one_or_none()
        if row is None:
            raise KekNotFound(kek_id)
        root_key = self._root_keys.key(connection, row.root_generation)
        try:
            key = envelope.unseal(root_key, row.wrapped, kek_aad(owner, kek_id, version))
        except EnvelopeError:
            raise KekDamaged(kek_id) from None
        return Kek(owner, kek_id, version, key)


def hold_kek(connection: Connection, owner: str, kek_id: str) -> None:
    """Whether there is such a KEK stays as it is until the writing transaction ends."""
    hold(connection, f"kek {owner} {kek_id}")


def kek_aad(owner: str, kek_id: str, version: int) -> bytes:
    """What a version of a KEK is bound to."""
    return envelope.bind("kek", _FORMAT, owner, kek_id, version)


def _value_aad(kek: Kek, context: str) -> bytes:
    return envelope.bind("value", _FORMAT, kek.owner, kek.id, kek.version, context)
