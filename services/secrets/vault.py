"""Secrets: small structured values under a path, versioned, each secret encrypted under a key of its own."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.secrets import envelope
from services.secrets.keyring import KeyNotFound, Keyring
from services.secrets.tables import hold, secret_versions, secrets
from services.shared.database import Database
from services.shared.errors import Aborted, AlreadyExists, DataLoss, InvalidArgument, NotFound
from services.shared.ids import new_id

# Who owns the keys of secrets, and under which KEK.
_OWNER = "secrets"
_KEK = "secrets"

MAX_BYTES = 64 * 1024
_FORMAT = 1
# Sorts behind every character of a name.
_BEHIND = "~"
# Rows read at a time while a listing is filtered by what the caller may see.
_BATCH = 500


class SecretNotFound(NotFound):
    reason = "SECRET_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no secret {name!r}.", secret=name)


class SecretVersionNotFound(NotFound):
    reason = "SECRET_VERSION_NOT_FOUND"

    def __init__(self, name: str, version: int) -> None:
        super().__init__(f"Secret {name!r} has no version {version}.", secret=name, version=str(version))


class SecretExists(AlreadyExists):
    reason = "SECRET_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__(f"Secret {name!r} exists already. Update it, or choose another name.", secret=name)


class VersionMismatch(Aborted):
    reason = "VERSION_MISMATCH"

    def __init__(self, name: str, expected: int, current: int) -> None:
        super().__init__(
            f"Secret {name!r} is at version {current}, not {expected}. Read it again, then repeat the change.",
            secret=name,
            current_version=str(current),
        )


class SecretTooLarge(InvalidArgument):
    reason = "SECRET_TOO_LARGE"

    def __init__(self, size: int) -> None:
        super().__init__(f"The value has {size} bytes; a secret holds at most {MAX_BYTES} bytes of JSON.")


class SecretDamaged(DataLoss):
    reason = "SECRET_DAMAGED"

    def __init__(self, name: str) -> None:
        super().__init__(f"The stored value of secret {name!r} is damaged. Restore it from a backup.", secret=name)


@dataclass(frozen=True)
class SecretVersion:
    """A version, without its value."""

    name: str
    version: int
    created_at: datetime
    created_by: str


@dataclass(frozen=True)
class SecretValue:
    """A version with its value."""

    about: SecretVersion
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class SecretSummary:
    """A secret in a listing."""

    name: str
    current_version: int
    created_at: datetime
    updated_at: datetime


def _now() -> datetime:
    return datetime.now(UTC)


class Vault:
    """The embedded provider: secrets in this service's database."""

    def __init__(self, database: Database, keyring: Keyring, clock: Callable[[], datetime] = _now) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock

    def create(self, name: str, data: Mapping[str, Any], author: str) -> SecretVersion:
        """Adds a secret at version 1. Raises SecretExists, SecretTooLarge."""
        plaintext = _encoded(data)
        with self._database.write() as connection:
            if _hold(connection, name) is not None:
                raise SecretExists(name)
            return self._create(connection, name, plaintext, author)

    def update(
        self,
        name: str,
        data: Mapping[str, Any],
        author: str,
        *,
        expected_version: int | None = None,
        allow_missing: bool = False,
    ) -> SecretVersion:
        """Adds a version. `expected_version` is the one it must follow, 0 if there may be none.

        Raises SecretNotFound, VersionMismatch, SecretTooLarge.
        """
        plaintext = _encoded(data)
        with self._database.write() as connection:
            secret = _hold(connection, name)
            if secret is None and not allow_missing and expected_version != 0:
                raise SecretNotFound(name)
            current = 0 if secret is None else secret.current_version
            if expected_version is not None and expected_version != current:
                raise VersionMismatch(name, expected_version, current)
            if secret is None:
                return self._create(connection, name, plaintext, author)
            return self._append(connection, secret, plaintext, author)

    def get(self, name: str, version: int = 0) -> SecretValue:
        """Reads a version, the current one if 0. Raises SecretNotFound, SecretVersionNotFound, SecretDamaged."""
        with self._database.read() as connection:
            secret = _find(connection, name)
            if secret is None:
                raise SecretNotFound(name)
            if version > secret.current_version:
                raise SecretVersionNotFound(name, version)
            wanted = secret_versions.c.version == (version or secret.current_version)
            found = sa.select(secret_versions).where(secret_versions.c.secret_name == name, wanted)
            row = connection.execute(found).one_or_none()
            if row is None:
                raise SecretDamaged(name)
            key = self._key(connection, secret)
        try:
            plaintext = envelope.unseal(key, row.sealed, _aad(name, secret.uid, row.version))
        except envelope.EnvelopeError:
            raise SecretDamaged(name) from None
        return SecretValue(_version(row), json.loads(plaintext))

    def history(self, name: str) -> list[SecretVersion]:
        """The versions, newest first. Raises SecretNotFound."""
        with self._database.read() as connection:
            if _find(connection, name) is None:
                raise SecretNotFound(name)
            found = (
                sa.select(secret_versions)
                .where(secret_versions.c.secret_name == name)
                .order_by(secret_versions.c.version.desc())
            )
            return [_version(row) for row in connection.execute(found)]

    def listing(
        self, *, visible: Callable[[str], bool], prefix: str = "", after: str = "", limit: int = 100
    ) -> list[SecretSummary]:
        """At most `limit` secrets in order of their names, from behind `after`: those that are `visible`."""
        page: list[SecretSummary] = []
        with self._database.read() as connection:
            for row in _names_after(connection, after, prefix):
                if visible(row.name):
                    page.append(SecretSummary(row.name, row.current_version, row.created_at, row.updated_at))
                if len(page) == limit:
                    break
        return page

    def delete(self, name: str) -> int:
        """Deletes a secret with its versions and destroys its key; how many versions. Raises SecretNotFound."""
        with self._database.write() as connection:
            secret = _hold(connection, name)
            if secret is None:
                raise SecretNotFound(name)
            destroyed = connection.execute(sa.delete(secret_versions).where(secret_versions.c.secret_name == name))
            connection.execute(sa.delete(secrets).where(secrets.c.name == name))
            self._keyring.destroy_in(connection, _OWNER, [secret.key_id])
        self._database.forget_deleted()
        return destroyed.rowcount

    def prepare(self) -> None:
        """Makes the KEK of secrets at the first start."""
        self._keyring.create_kek(_OWNER, _KEK)

    def _create(self, connection: Connection, name: str, plaintext: bytes, author: str) -> SecretVersion:
        uid, now = new_id(), self._clock()
        [key] = self._keyring.generate_in(connection, _OWNER, _KEK, [uid])
        secret = {
            "name": name,
            "uid": uid,
            "key_id": key.id,
            "current_version": 1,
            "created_at": now,
            "updated_at": now,
        }
        connection.execute(sa.insert(secrets).values(secret))
        return self._store(connection, name, uid, key.key, 1, plaintext, author, now)

    def _append(self, connection: Connection, secret: Row[Any], plaintext: bytes, author: str) -> SecretVersion:
        version, now = secret.current_version + 1, self._clock()
        changed = sa.update(secrets).where(secrets.c.name == secret.name)
        connection.execute(changed.values(current_version=version, updated_at=now))
        key = self._key(connection, secret)
        return self._store(connection, secret.name, secret.uid, key, version, plaintext, author, now)

    @staticmethod
    def _store(
        connection: Connection,
        name: str,
        uid: str,
        key: bytes,
        version: int,
        plaintext: bytes,
        author: str,
        now: datetime,
    ) -> SecretVersion:
        sealed = envelope.seal(key, plaintext, _aad(name, uid, version))
        row = {"secret_name": name, "version": version, "sealed": sealed, "created_at": now, "created_by": author}
        connection.execute(sa.insert(secret_versions).values(row))
        return SecretVersion(name, version, now, author)

    def _key(self, connection: Connection, secret: Row[Any]) -> bytes:
        try:
            [key] = self._keyring.unwrap_in(connection, _OWNER, [(secret.key_id, secret.uid)])
        except KeyNotFound:
            raise SecretDamaged(secret.name) from None
        return key.key


def _find(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(sa.select(secrets).where(secrets.c.name == name)).one_or_none()


def _hold(connection: Connection, name: str) -> Row[Any] | None:
    """As `_find`; until the transaction ends nobody else writes this secret, or creates it."""
    hold(connection, f"secret {name}")
    return _find(connection, name)


def _names_after(connection: Connection, after: str, prefix: str) -> Iterator[Row[Any]]:
    while True:
        wanted = sa.select(secrets).where(secrets.c.name > after).order_by(secrets.c.name).limit(_BATCH)
        if prefix:
            # A range and not LIKE, which on SQLite takes `a` for `A`.
            wanted = wanted.where(secrets.c.name >= prefix, secrets.c.name < prefix + _BEHIND)
        rows = connection.execute(wanted).all()
        yield from rows
        if len(rows) < _BATCH:
            return
        after = rows[-1].name


def _version(row: Row[Any]) -> SecretVersion:
    return SecretVersion(row.secret_name, row.version, row.created_at, row.created_by)


def _encoded(data: Mapping[str, Any]) -> bytes:
    plaintext = json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    if len(plaintext) > MAX_BYTES:
        raise SecretTooLarge(len(plaintext))
    return plaintext


def _aad(name: str, uid: str, version: int) -> bytes:
    # With the name, rows exchanged between two secrets do not let who may read the one read the other.
    return envelope.bind("secret", _FORMAT, name, uid, version)
