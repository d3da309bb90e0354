"""Uploads: what is being sent and is no version yet."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa

from services.models import chunk_index, codecs, condemned, managers, versions
from services.models import tables as t
from services.models.access_codes import AccessCode, AccessCodeRefused
from services.models.chunk_keys import Domain
from services.models.guesses import AccessCodeThrottled
from services.models.key_client import KeyMissing
from services.models.manager_access import may_on_all
from services.models.managers import Managers
from services.models.version_keys import VersionKeys
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
    """An upload as it stands. `state` is open, committed or aborted; `version_uid` is set once committed.

    Its dedup domain is the one the manager had when it was opened; `protected` by an access code it has its own.
    """

    name: UploadName
    version: str
    state: str
    version_uid: str | None
    domain_key_id: str
    protected: bool
    compression_level: int = codecs.DEFAULT_LEVEL

    @property
    def manager_id(self) -> str:
        return self.name.manager_id

    @property
    def uid(self) -> str:
        return self.version_uid or ""

    @property
    def data_key_id(self) -> str:
        """Empty while there is none: without an access code the commit makes it."""
        return self.domain_key_id if self.protected else ""


def may_read_all(principal: Principal, manager_id: str) -> bool:
    """Whether the caller may learn which chunks a manager has.

    Chunks belong to no model, so this takes the permission on the whole manager.
    """
    return may_on_all(principal, "models.read", manager_id)


class Uploads:
    """Opens, looks up and gives up uploads."""

    def __init__(
        self, database: Database, managers: Managers, keys: VersionKeys, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._managers = managers
        self._keys = keys
        self._clock = clock

    def create(
        self,
        creator: str,
        manager_id: str,
        model_name: str,
        version: str,
        *,
        resumable: bool = True,
        access_code: AccessCode | None = None,
        compression_level: int | None = None,
    ) -> tuple[Upload, bool]:
        """Opens an upload, or returns the creator's own resumable one of that version and True.

        Without a version it is named after the moment. `compression_level` is 0 to 9; resumed, it takes the new one.
        With an access code the version will be protected by it: every further step of the upload takes the code, and
        one that was begun with another code is not returned.

        Raises ManagerNotFound, VersionExists, AccessCodeUnsupported, and InvalidArgument for reserved names and other
        levels.
        """
        level = codecs.check_level(compression_level)
        if model_name in _RESERVED or version in _RESERVED:
            message = "`latest`, `.` and `..` are no names for a version or a model."
            raise InvalidArgument(message, reason="NAME_RESERVED")
        manager = self._managers.get(manager_id)
        place = UploadName(manager_id, model_name, "", creator)
        found = self._resumable(place, version, access_code) if resumable and version else None
        # Made here: no key is asked for within a transaction.
        with self._managers.unless_deleted(manager):
            lock = self._keys.new_protected_key(manager, access_code).key_id if access_code and not found else None
        now = self._clock()
        with self._database.write() as connection:
            t.hold_references(connection)
            managers.hold(connection, manager_id, manager.kek_id)
            version = version or _free_name(connection, manager_id, model_name, now)
            versions.refuse_existing(connection, manager_id, model_name, version)
            if found is not None:
                upload = replace(keep_open(connection, found, now), compression_level=level)
                connection.execute(sa.update(t.uploads).where(_is(found)).values(compression_level=level))
                return upload, True
            name = replace(place, upload_id=new_id())
            # Read in this transaction: re-encryption changes it, and gives up the uploads that are open then.
            domain_key_id = lock or managers.domain_key_id(connection, manager_id)
            upload = Upload(
                name, version, "open", None, domain_key_id, protected=lock is not None, compression_level=level
            )
            if lock:
                condemned.refuse_condemned(connection, [condemned.name_of_key(lock)])
            connection.execute(sa.insert(t.uploads).values(_row(upload, resumable=resumable, now=now)))
        return upload, False

    def _resumable(self, place: UploadName, version: str, access_code: AccessCode | None) -> UploadName | None:
        """The creator's own open upload of the version, if there is one that this code, or none, opens."""
        with self._database.read() as connection:
            upload_id = _own_open(connection, place, version, protected=access_code is not None)
            if upload_id is None:
                return None
            upload = find(connection, replace(place, upload_id=upload_id), lock=False)
        try:
            open_domain(self._keys, upload, access_code)
        except (AccessCodeRefused, AccessCodeThrottled, UploadNotFound):
            return None
        return upload.name

    def present(
        self, name: UploadName, digests: bytes, *, any_chunk: bool, access_code: AccessCode | None = None
    ) -> bytes:
        """One byte for each digest of 32 bytes: 1 if its chunk need not be sent. Those are kept for the upload.

        `any_chunk`: the caller may hear of chunks that did not come in this upload. Raises UploadNotFound,
        AccessCodeRefused.
        """
        if len(digests) % DIGEST_BYTES:
            raise InvalidArgument("`digests` has 32 bytes for each chunk.", reason="DIGESTS_INVALID")
        with self._database.read() as connection:
            upload = find(connection, name, lock=False)
        domain = open_domain(self._keys, upload, access_code)
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
    columns = (c.version, c.state, c.version_uid, c.domain_key_id, c.protected, c.compression_level)
    query = sa.select(*columns).where(_is(name))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise UploadNotFound("You have no such upload of this model. Open one with CreateUpload.")
    return Upload(name, *row)


def keep_open(connection: sa.Connection, name: UploadName, now: datetime) -> Upload:
    """The open upload, which lives on from now. Raises UploadNotFound if it is over."""
    upload = find(connection, name)
    if upload.state != "open":
        raise _over()
    connection.execute(sa.update(t.uploads).where(_is(name)).values(expires_at=now + LIFETIME))
    return upload


def open_domain(keys: VersionKeys, upload: Upload, access_code: AccessCode | None) -> Domain:
    """Where the chunks of an open upload go. Raises UploadNotFound if it is over, AccessCodeRefused."""
    if upload.state != "open":
        raise _over()
    try:
        return keys.domain(upload, access_code)
    except KeyMissing:
        # Re-encryption gave the upload up, and destroyed the secret, just now.
        raise _over() from None


def open_internal(
    connection: sa.Connection,
    name: UploadName,
    version: str,
    domain_key_id: str,
    *,
    compression_level: int,
    now: datetime,
) -> None:
    """Opens an upload of the service's own, into a domain that need not be the manager's."""
    upload = Upload(name, version, "open", None, domain_key_id, protected=False, compression_level=compression_level)
    connection.execute(sa.insert(t.uploads).values(_row(upload, resumable=False, now=now)))


def give_up_all(connection: sa.Connection, creator: str) -> None:
    """Deletes the uploads of a creator with their leases."""
    t.hold_references(connection, removing=True)
    for upload in connection.scalars(sa.select(t.uploads.c.id).where(t.uploads.c.creator == creator)).all():
        chunk_index.release(connection, upload)
        connection.execute(sa.delete(t.uploads).where(t.uploads.c.id == upload))


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


def _over() -> UploadNotFound:
    return UploadNotFound("This upload is over. Open another with CreateUpload.")


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


def _own_open(connection: sa.Connection, place: UploadName, version: str, *, protected: bool) -> str | None:
    c = t.uploads.c
    mine = sa.and_(c.creator == place.creator, c.resumable, c.protected == protected)
    of_version = _of_version(place.manager_id, place.model_name, version)
    # The latest: one that was begun with another code does not stand in the way for ever.
    return connection.scalar(sa.select(c.id).where(of_version, mine).order_by(c.id.desc()).limit(1))


def _row(upload: Upload, *, resumable: bool, now: datetime) -> dict[str, object]:
    return {
        "id": upload.name.upload_id,
        "manager_id": upload.manager_id,
        "model_name": upload.name.model_name,
        "version": upload.version,
        "creator": upload.name.creator,
        "state": upload.state,
        "resumable": resumable,
        "domain_key_id": upload.domain_key_id,
        "protected": upload.protected,
        "compression_level": upload.compression_level,
        "expires_at": now + LIFETIME,
    }


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
