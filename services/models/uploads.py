"""Uploads: what is being sent and is no version yet."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from services.models import chunk_index, codecs, versions
from services.models import tables as t
from services.models.managers import Managers
from services.shared.database import Database
from services.shared.errors import FailedPrecondition, InvalidArgument, NotFound
from services.shared.identity import Principal
from services.shared.ids import new_id
from strongroom.chunking import DIGEST_BYTES

# An upload that nothing happens to for so long is given up.
LIFETIME = timedelta(hours=24)
_RESERVED = {versions.LATEST, ".", ".."}


class UploadNotFound(NotFound):
    """There is no such upload, or it is another's, or it is over: all the same to who asks."""

    reason = "UPLOAD_NOT_FOUND"


class UploadCommitted(FailedPrecondition):
    """The upload is a version by now."""

    reason = "UPLOAD_COMMITTED"


@dataclass(frozen=True)
class UploadName:
    """An upload as a caller names it; `creator` is the caller. It is bound to all of this."""

    manager_id: str
    model_name: str
    upload_id: str
    creator: str


@dataclass(frozen=True)
class Upload:
    """An upload as it stands. `state` is open, committed or aborted; `version_uid` is set once committed."""

    name: UploadName
    version: str
    state: str
    version_uid: str | None
    compression_level: int = codecs.DEFAULT_LEVEL


def may_read_all(principal: Principal, manager_id: str) -> bool:
    """Whether the caller may learn which chunks a manager has.

    Chunks belong to no model, so this takes the permission on the whole manager. A deny anywhere in it could not be
    heeded, therefore whoever has one is treated like somebody without the permission.
    """
    permission = "models.read"
    denied = any(grant.effect == "deny" and grant.names(permission) for grant in principal.grants)
    return not denied and principal.allows(permission, f"managers/{manager_id}/**")


class Uploads:
    """Opens, looks up and gives up uploads."""

    def __init__(self, database: Database, managers: Managers, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._managers = managers
        self._clock = clock

    def create(
        self,
        creator: str,
        manager_id: str,
        model_name: str,
        version: str,
        *,
        resumable: bool = True,
        compression_level: int | None = None,
    ) -> tuple[Upload, bool]:
        """Opens an upload, or returns the creator's own resumable one of that version and True.

        Without a version it is named after the moment. `compression_level` is 0 to 9; resumed, it takes the new one.
        Raises ManagerNotFound, VersionExists, and InvalidArgument for reserved names and other levels.
        """
        level = codecs.check_level(compression_level)
        if model_name in _RESERVED or version in _RESERVED:
            message = "`latest`, `.` and `..` are no names for a version or a model."
            raise InvalidArgument(message, reason="NAME_RESERVED")
        self._managers.get(manager_id)
        now = self._clock()
        with self._database.write() as connection:
            version = version or _free_name(connection, manager_id, model_name, now)
            versions.refuse_existing(connection, manager_id, model_name, version)
            found = _own_open(connection, creator, manager_id, model_name, version) if resumable else None
            upload_id = found or new_id()
            name = UploadName(manager_id, model_name, upload_id, creator)
            if found is None:
                row = {
                    "id": upload_id,
                    "manager_id": manager_id,
                    "model_name": model_name,
                    "version": version,
                    "creator": creator,
                    "state": "open",
                    "resumable": resumable,
                    "compression_level": level,
                    "expires_at": now + LIFETIME,
                }
                connection.execute(sa.insert(t.uploads).values(row))
            else:
                keep_open(connection, name, now)
                connection.execute(sa.update(t.uploads).where(_is(name)).values(compression_level=level))
        return Upload(name, version, "open", None, level), found is not None

    def present(self, name: UploadName, digests: bytes, *, any_chunk: bool) -> bytes:
        """One byte for each digest of 32 bytes: 1 if its chunk need not be sent. Those are kept for the upload.

        `any_chunk`: the caller may hear of chunks that did not come in this upload. Raises UploadNotFound.
        """
        if len(digests) % DIGEST_BYTES:
            raise InvalidArgument("`digests` has 32 bytes for each chunk.", reason="DIGESTS_INVALID")
        domain = self._managers.domain(self._managers.get(name.manager_id))
        chunk_ids = [domain.chunk_id(digest) for digest in split(digests)]
        with self._database.write() as connection:
            t.hold_references(connection)
            keep_open(connection, name, self._clock())
            sent_in = None if any_chunk else name.upload_id
            found = chunk_index.find(connection, name.manager_id, set(chunk_ids), sent_in=sent_in)
            chunk_index.lease(connection, name.upload_id, found.values(), sent=False)
        return bytes(chunk_id in found for chunk_id in chunk_ids)

    def hold_sent(self, name: UploadName, chunk_ids: Collection[bytes]) -> set[bytes]:
        """Those of the chunks that are stored already; since their bytes came in this upload, they are held as sent."""
        with self._database.read() as connection:
            if not chunk_index.find(connection, name.manager_id, chunk_ids):
                return set()
        with self._database.write() as connection:
            t.hold_references(connection)
            keep_open(connection, name, self._clock())
            found = chunk_index.find(connection, name.manager_id, chunk_ids)
            chunk_index.lease(connection, name.upload_id, found.values(), sent=True)
            return set(found)

    def abort(self, name: UploadName) -> None:
        """Gives an upload up; a second time too. Raises UploadNotFound and UploadCommitted."""
        with self._database.write() as connection:
            t.hold_references(connection, removing=True)
            upload = find(connection, name)
            if upload.state == "committed":
                raise UploadCommitted("The upload is committed: delete the version instead.", version=upload.version)
            chunk_index.release(connection, name.upload_id)
            connection.execute(sa.update(t.uploads).where(_is(name)).values(state="aborted"))


def find(connection: sa.Connection, name: UploadName, *, lock: bool = True) -> Upload:
    """The upload in whatever state. Raises UploadNotFound unless caller, manager and model are its own."""
    c = t.uploads.c
    query = sa.select(c.version, c.state, c.version_uid, c.compression_level).where(_is(name))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise UploadNotFound("You have no such upload of this model. Open one with CreateUpload.")
    return Upload(name, row.version, row.state, row.version_uid, row.compression_level)


def keep_open(connection: sa.Connection, name: UploadName, now: datetime) -> Upload:
    """The open upload, which lives on from now. Raises UploadNotFound if it is over."""
    upload = find(connection, name)
    if upload.state != "open":
        raise UploadNotFound("This upload is over. Open another with CreateUpload.")
    connection.execute(sa.update(t.uploads).where(_is(name)).values(expires_at=now + LIFETIME))
    return upload


def close_committed(connection: sa.Connection, name: UploadName, version_uid: str) -> None:
    """Turns the upload into the version's receipt."""
    chunk_index.release(connection, name.upload_id)
    changes = {"state": "committed", "version_uid": version_uid}
    connection.execute(sa.update(t.uploads).where(_is(name)).values(changes))


def expire(connection: sa.Connection, now: datetime) -> int:
    """Deletes uploads whose time is over, with their leases; returns how many of them were open."""
    # Locked, so that none comes back to life between the loss of its leases and its own.
    over = sa.select(t.uploads.c.id, t.uploads.c.state).where(t.uploads.c.expires_at <= now).with_for_update()
    states = {row.id: row.state for row in connection.execute(over)}
    for batch in t.batches(list(states)):
        connection.execute(sa.delete(t.upload_chunks).where(t.upload_chunks.c.upload.in_(batch)))
        connection.execute(sa.delete(t.uploads).where(t.uploads.c.id.in_(batch)))
    return sum(state == "open" for state in states.values())


def any_open(connection: sa.Connection) -> bool:
    return connection.execute(sa.select(t.uploads.c.id).where(t.uploads.c.state == "open").limit(1)).first() is not None


def split(digests: bytes) -> Sequence[bytes]:
    """Digests of 32 bytes out of their concatenation."""
    return [digests[start : start + DIGEST_BYTES] for start in range(0, len(digests), DIGEST_BYTES)]


def _is(name: UploadName) -> sa.ColumnElement[bool]:
    c = t.uploads.c
    return sa.and_(
        c.id == name.upload_id,
        c.creator == name.creator,
        c.manager_id == name.manager_id,
        c.model_name == name.model_name,
    )


def _of_version(manager_id: str, model_name: str, version: str) -> sa.ColumnElement[bool]:
    c = t.uploads.c
    return sa.and_(c.manager_id == manager_id, c.model_name == model_name, c.version == version, c.state == "open")


def _own_open(connection: sa.Connection, creator: str, manager_id: str, model_name: str, version: str) -> str | None:
    mine = sa.and_(t.uploads.c.creator == creator, t.uploads.c.resumable)
    query = sa.select(t.uploads.c.id).where(_of_version(manager_id, model_name, version), mine).limit(1)
    return connection.scalar(query)


def _free_name(connection: sa.Connection, manager_id: str, model_name: str, now: datetime) -> str:
    """The second; if a version or an upload is named after it, the first microsecond from now on that none is.

    Not the next free second: those who push often would run ahead of the clock, and count their way there each time.
    """
    name = now.strftime("%Y%m%dT%H%M%SZ")
    while True:
        taken = sa.select(t.uploads.c.id).where(_of_version(manager_id, model_name, name)).limit(1)
        if connection.scalar(taken) is None and not versions.exists(connection, manager_id, model_name, name):
            return name
        name = now.strftime("%Y%m%dT%H%M%S.%fZ")
        now += timedelta(microseconds=1)
