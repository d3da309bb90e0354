"""Secrets: small structured values under a path, versioned, each secret encrypted under a key of its own.

write ──► current ──next write──► previous ──► older, read by number
stage ──► pending ──promote──► current      discard: destroyed
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.secrets import envelope, vault_labels
from services.secrets.keyring import KeyNotFound, Keyring
from services.secrets.rotation.runs import give_up
from services.secrets.tables import secret_versions, secrets
from services.secrets.vault_errors import (
    ExpiryPast,
    SecretDamaged,
    SecretDeleted,
    SecretExists,
    SecretNotFound,
    SecretStageNotFound,
    SecretVersionDeleted,
    SecretVersionDestroyed,
    SecretVersionExpired,
    SecretVersionNotFound,
    VersionMismatch,
    VersionNotPending,
    VersionPending,
)
from services.secrets.vault_records import SecretValue, SecretVersion, Stage
from services.secrets.vault_rows import READ, change, existing, hold_secret, told, versions_of
from services.secrets.vault_values import decoded, encoded
from services.shared.database import Database
from services.shared.errors import InvalidArgument
from services.shared.expiring_cache import ExpiringCache
from services.shared.ids import new_id

# Who owns the keys of secrets, and under which KEK.
_OWNER = "secrets"
_KEK = "secrets"
_FORMAT = 1
# How many opened keys are kept in memory to read with, and for how long.
_KEYS = 4096
_KEY_SECONDS = 60.0


def _now() -> datetime:
    return datetime.now(UTC)


def _unnoticed(_connection: Connection, _name: str) -> None:
    return None


class Vault:
    """The embedded provider: secrets in this service's database.

    A deleted secret is one that is not there, for reading, writing and check-and-set, but for `undelete`.

    Args:
        changed: told the name of a secret in each transaction that changes it.
    """

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        clock: Callable[[], datetime] = _now,
        changed: Callable[[Connection, str], None] = _unnoticed,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock
        self._changed = changed
        self._keys: ExpiringCache[tuple[str, str], bytes] = ExpiringCache(_KEYS, _KEY_SECONDS)

    def prepare(self) -> None:
        """Makes the KEK of secrets at the first start."""
        self._keyring.create_kek(_OWNER, _KEK)

    def create(
        self,
        name: str,
        data: Mapping[str, Any],
        author: str,
        *,
        labels: Mapping[str, str] | None = None,
        expires_at: datetime | None = None,
    ) -> SecretVersion:
        """Adds a secret. Raises SecretExists, SecretTooLarge, BinaryInvalid, ExpiryPast."""
        try:
            return self.update(name, data, author, expected_version=0, labels=labels, expires_at=expires_at)
        except VersionMismatch:
            raise SecretExists(name) from None

    def update(
        self,
        name: str,
        data: Mapping[str, Any],
        author: str,
        *,
        expected_version: int | None = None,
        allow_missing: bool = False,
        labels: Mapping[str, str] | None = None,
        expires_at: datetime | None = None,
    ) -> SecretVersion:
        """Adds a version and makes it the current one.

        Args:
            expected_version: the current version that it must follow, 0 if there may be none (check-and-set).
            labels: replace those of the secret; None leaves them.
            expires_at: from when on the new version is not served.

        Raises SecretNotFound, SecretDeleted, VersionMismatch, SecretTooLarge, BinaryInvalid, ExpiryPast.
        """
        plaintext = encoded(data)
        self._check_expiry(expires_at)
        with self._database.write() as connection:
            secret = hold_secret(connection, name)
            there = secret is not None and secret.deleted_at is None
            if not there and not allow_missing and expected_version != 0:
                raise SecretNotFound(name) if secret is None else SecretDeleted(name)
            current = secret.current_version if secret is not None and there else 0
            if expected_version is not None and expected_version != current:
                raise VersionMismatch(name, expected_version, current)
            if not there:
                secret = self._insert(connection, name) if secret is None else self._begin_anew(connection, secret)
            assert secret is not None
            if labels is not None:
                vault_labels.replace(connection, name, labels)
            self._changed(connection, name)
            return self._append(connection, secret, plaintext, author, Stage.CURRENT, expires_at)

    def stage(
        self, name: str, data: Mapping[str, Any], author: str, *, expires_at: datetime | None = None
    ) -> SecretVersion:
        """Adds a pending version, which is read only where it is asked for. Raises as `update`, and VersionPending."""
        plaintext = encoded(data)
        self._check_expiry(expires_at)
        with self._holding(name) as (connection, secret):
            if secret.pending_version:
                raise VersionPending(name, secret.pending_version)
            return self._append(connection, secret, plaintext, author, Stage.PENDING, expires_at)

    def promote(self, name: str, version: int, *, expected_version: int | None = None) -> SecretVersion:
        """Makes the pending version the current one; nothing if it is already.

        `expected_version` is the current one that it must follow. Raises VersionNotPending, VersionMismatch.
        """
        with self._holding(name) as (connection, secret):
            if version != secret.current_version:
                if expected_version is not None and expected_version != secret.current_version:
                    raise VersionMismatch(name, expected_version, secret.current_version)
                if not version or version != secret.pending_version:
                    raise VersionNotPending(name, version)
                stages = {"pending_version": 0, "current_version": version, "previous_version": secret.current_version}
                change(connection, name, updated_at=self._clock(), **stages)
            return told(existing(connection, name), versions_of(connection, name, [version])[0])

    def discard(self, name: str, version: int) -> SecretVersion:
        """Destroys the pending version; nothing if it is destroyed already. Raises VersionNotPending."""
        with self._holding(name) as (connection, secret):
            if not version or version != secret.pending_version:
                [row] = versions_of(connection, name, [version])
                if row.destroyed_at is None:
                    raise VersionNotPending(name, version)
            self._destroy_versions(connection, secret, [version])
            discarded = told(existing(connection, name), versions_of(connection, name, [version])[0])
        self._database.forget_deleted()
        return discarded

    def get(self, name: str, version: int = 0, stage: str = "", *, hidden: bool = False) -> SecretValue:
        """Reads a version, by number or by stage; the current one if neither is given.

        Args:
            hidden: also one that expired or is deleted by itself, for who has to end it where it is used.

        Raises SecretNotFound, SecretDeleted, SecretVersionNotFound, SecretStageNotFound, SecretVersionDeleted,
        SecretVersionDestroyed, SecretVersionExpired, SecretDamaged.
        """
        if version and stage:
            raise InvalidArgument("Name a version or a stage, not both.")
        row = self._database.row(READ[Stage(stage or Stage.CURRENT)], {"name": name, "number": version})
        if row is None:
            raise SecretNotFound(name)
        if row.secret_deleted_at is not None:
            raise SecretDeleted(name)
        if not row.number:
            raise SecretStageNotFound(name, stage or Stage.CURRENT)
        if row.number > row.last_version:
            raise SecretVersionNotFound(name, row.number)
        if row.version is None:
            raise SecretDamaged(name)
        self._check_readable(row, hidden)
        try:
            plaintext = envelope.unseal(self._read_key(row), row.sealed, _aad(name, row.uid, row.version))
        except envelope.EnvelopeError:
            raise SecretDamaged(name) from None
        return SecretValue(told(row, row), decoded(plaintext))

    def history(self, name: str, *, before: int = 0, limit: int = 1000) -> list[SecretVersion]:
        """The versions, newest first, from below `before` if that is given. Raises SecretNotFound."""
        with self._database.read() as connection:
            secret = existing(connection, name)
            v = secret_versions.c
            found = sa.select(secret_versions).where(v.secret_name == name).order_by(v.version.desc()).limit(limit)
            if before:
                found = found.where(v.version < before)
            return [told(secret, row) for row in connection.execute(found)]

    def delete(self, name: str, versions: Sequence[int] = ()) -> None:
        """Hides a secret, or these versions of it, until it is undeleted; nothing if it is already.

        Raises SecretNotFound, SecretVersionNotFound, VersionPending.
        """
        with self._holding(name, deleted=True) as (connection, secret):
            if secret.pending_version in versions:
                raise VersionPending(name, secret.pending_version)
            self._mark_deleted(connection, name, versions, self._clock())

    def undelete(self, name: str, versions: Sequence[int] = ()) -> None:
        """Reverses `delete`. Raises SecretNotFound, SecretVersionNotFound, SecretVersionDestroyed."""
        with self._holding(name, deleted=True) as (connection, _secret):
            for row in versions_of(connection, name, versions):
                if row.destroyed_at is not None:
                    raise SecretVersionDestroyed(name, row.version)
            self._mark_deleted(connection, name, versions, None)

    def destroy(self, name: str, versions: Sequence[int] = ()) -> int:
        """Destroys these versions for good, or the secret with its key; how many versions it destroyed.

        Raises SecretNotFound, SecretVersionNotFound.
        """
        with self._holding(name, deleted=True) as (connection, secret):
            if versions:
                destroyed = self._destroy_versions(connection, secret, versions)
            else:
                v = secret_versions.c
                kept = sa.and_(v.secret_name == name, v.destroyed_at.is_(None))
                destroyed = connection.scalar(sa.select(sa.func.count()).where(kept)) or 0
                connection.execute(sa.delete(secret_versions).where(v.secret_name == name))
                connection.execute(sa.delete(secrets).where(secrets.c.name == name))
                self._keyring.destroy_in(connection, _OWNER, [secret.key_id])
        self._database.forget_deleted()
        return destroyed

    def edit(
        self,
        name: str,
        *,
        set_labels: Mapping[str, str],
        remove_labels: Sequence[str] = (),
        expires_at: datetime | None = None,
        never_expires: bool = False,
    ) -> None:
        """Changes labels, and when the current version expires. Raises SecretNotFound, SecretDeleted, ExpiryPast."""
        self._check_expiry(expires_at)
        with self._holding(name) as (connection, secret):
            vault_labels.change(connection, name, set_labels, remove_labels)
            if expires_at or never_expires:
                v = secret_versions.c
                this = sa.and_(v.secret_name == name, v.version == secret.current_version)
                connection.execute(sa.update(secret_versions).where(this).values(expires_at=expires_at))

    @contextmanager
    def _holding(self, name: str, *, deleted: bool = False) -> Iterator[tuple[Connection, Row[Any]]]:
        """A transaction in which nobody else writes this secret; `deleted` says whether it may be deleted."""
        with self._database.write() as connection:
            secret = hold_secret(connection, name)
            if secret is None:
                raise SecretNotFound(name)
            if secret.deleted_at is not None and not deleted:
                raise SecretDeleted(name)
            yield connection, secret
            self._changed(connection, name)

    def _insert(self, connection: Connection, name: str) -> Row[Any]:
        uid, now = new_id(), self._clock()
        [key] = self._keyring.generate_in(connection, _OWNER, _KEK, [uid])
        moments = {"created_at": now, "updated_at": now}
        row = {"name": name, "uid": uid, "key_id": key.id, "current_version": 0, "last_version": 0} | moments
        connection.execute(sa.insert(secrets).values(row))
        return existing(connection, name)

    def _begin_anew(self, connection: Connection, secret: Row[Any]) -> Row[Any]:
        """A deleted secret is written: what it held before stays deleted, each version by itself.

        It is another secret: whoever made the one before rotate has no say in where this one's value goes.
        """
        give_up(connection, secret.name, self._clock())
        v = secret_versions.c
        held = sa.and_(v.secret_name == secret.name, v.deleted_at.is_(None))
        connection.execute(sa.update(secret_versions).where(held).values(deleted_at=secret.deleted_at))
        none = {f"{stage}_version": 0 for stage in Stage}
        change(connection, secret.name, deleted_at=None, **none)
        vault_labels.replace(connection, secret.name, {})
        return existing(connection, secret.name)

    def _append(
        self,
        connection: Connection,
        secret: Row[Any],
        plaintext: bytes,
        author: str,
        stage: Stage,
        expires_at: datetime | None,
    ) -> SecretVersion:
        name, version, now = secret.name, secret.last_version + 1, self._clock()
        if stage is Stage.CURRENT:
            stages = {"current_version": version, "previous_version": secret.current_version, "updated_at": now}
        else:
            stages = {"pending_version": version}
        change(connection, name, last_version=version, **stages)
        sealed = envelope.seal(self._key(connection, secret), plaintext, _aad(name, secret.uid, version))
        row = {"secret_name": name, "version": version, "sealed": sealed, "created_at": now, "created_by": author}
        connection.execute(sa.insert(secret_versions).values(row | {"expires_at": expires_at}))
        return SecretVersion(name, version, now, author, stage, expires_at)

    def _mark_deleted(
        self, connection: Connection, name: str, versions: Sequence[int], moment: datetime | None
    ) -> None:
        if not versions:
            unmarked = sa.func.coalesce(secrets.c.deleted_at, moment) if moment else None
            change(connection, name, deleted_at=unmarked)
            return
        versions_of(connection, name, versions)
        v = secret_versions.c
        these = sa.and_(v.secret_name == name, v.version.in_(versions))
        if moment:
            these = sa.and_(these, v.deleted_at.is_(None))
        connection.execute(sa.update(secret_versions).where(these).values(deleted_at=moment))

    def _destroy_versions(self, connection: Connection, secret: Row[Any], versions: Sequence[int]) -> int:
        versions_of(connection, secret.name, versions)
        v = secret_versions.c
        these = sa.and_(v.secret_name == secret.name, v.version.in_(versions), v.destroyed_at.is_(None))
        gone = {"sealed": b"", "destroyed_at": self._clock()}
        destroyed = connection.execute(sa.update(secret_versions).where(these).values(gone)).rowcount
        if secret.pending_version in versions:
            change(connection, secret.name, pending_version=0)
        return destroyed

    def _read_key(self, row: Row[Any]) -> bytes:
        """The key to read with. One that was destroyed elsewhere is kept for a minute, but found no more."""
        place = (row.key_id, row.uid)
        key = self._keys.get(place)
        if key is None:
            with self._database.read() as connection:
                # It may be destroyed since its row was read.
                if existing(connection, row.name).uid != row.uid:
                    raise SecretNotFound(row.name)
                key = self._key(connection, row)
            self._keys.put(place, key)
        return key

    def _key(self, connection: Connection, secret: Row[Any]) -> bytes:
        try:
            [key] = self._keyring.unwrap_in(connection, _OWNER, [(secret.key_id, secret.uid)])
        except KeyNotFound:
            raise SecretDamaged(secret.name) from None
        return key.key

    def _check_expiry(self, expires_at: datetime | None) -> None:
        if expires_at is not None and expires_at <= self._clock():
            raise ExpiryPast

    def _check_readable(self, row: Row[Any], hidden: bool) -> None:
        if row.destroyed_at is not None:
            raise SecretVersionDestroyed(row.secret_name, row.version)
        if hidden:
            return
        if row.deleted_at is not None:
            raise SecretVersionDeleted(row.secret_name, row.version)
        if row.expires_at is not None and row.expires_at <= self._clock():
            raise SecretVersionExpired(row.secret_name, row.version)


def _aad(name: str, uid: str, version: int) -> bytes:
    # With the name, rows exchanged between two secrets do not let who may read the one read the other.
    return envelope.bind("secret", _FORMAT, name, uid, version)
