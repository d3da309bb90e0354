"""Commit: an upload becomes a version, whole or not at all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from services.models import chunk_index, condemned, manifests, proposals, uploads, versions
from services.models import tables as t
from services.models.access_codes import AccessCode
from services.models.chunk_index import ChunkRow
from services.models.key_client import WrappedKey
from services.models.managers import Managers
from services.models.manifests import ChunkRef, Manifest, ManifestFile
from services.models.proposals import ProposalInvalid, ProposedFile
from services.models.stores.store import Store
from services.models.uploads import Upload, UploadName
from services.models.version_keys import VersionKeys
from services.models.versions import Version, Versions
from services.shared.database import Database
from services.shared.errors import DomainError, FailedPrecondition, InvalidArgument
from services.shared.ids import new_id

# Digests told in the error: an error travels in trailers, of which 8 KiB are safe.
_TOLD = 64


class ChunksMissing(FailedPrecondition):
    """Chunks that the version needs are not there for this caller. `digests` has the first 64, hexadecimal, with commas
    between; `count` says how many there are."""

    reason = "CHUNKS_MISSING"

    def __init__(self, digests: Sequence[bytes]) -> None:
        told = ",".join(digest.hex() for digest in digests[:_TOLD])
        message = f"{len(digests)} chunks are missing: send those that HasChunks does not know, and commit again."
        super().__init__(message, digests=told, count=str(len(digests)))


@dataclass(frozen=True)
class _Draft:
    """A version that only needs its row: manifest stored, data key made."""

    version: Version
    manifest: Manifest = field(repr=False)
    rows: Mapping[bytes, ChunkRow] = field(repr=False)

    @property
    def names(self) -> list[str]:
        """What was made for it. The data key of a protected version is the upload's."""
        key = [] if self.version.protected else [condemned.name_of_key(self.version.data_key_id)]
        return [self.version.manifest_key, *key]


class Committer:
    """Commits uploads.

    Args:
        load: opens the manifest of a version.
        remove: removes condemned objects and keys, as far as it can.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        keys: VersionKeys,
        managers: Managers,
        versions: Versions,
        load: Callable[[Version, AccessCode | None], Manifest],
        remove: Callable[[list[str]], object],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._keys = keys
        self._managers = managers
        self._versions = versions
        self._load = load
        self._remove = remove
        self._clock = clock

    def commit(
        self,
        name: UploadName,
        files: Sequence[ProposedFile],
        *,
        any_chunk: bool,
        access_code: AccessCode | None = None,
        sha256_verified: bool = False,
        last_check: Callable[[], None] = lambda: None,
    ) -> tuple[Version, Manifest]:
        """Makes the upload's version; the same again if it is one already.

        Args:
            any_chunk: whether chunks may be used that did not come in this upload.
            access_code: the one that the upload was opened with.
            sha256_verified: whether the caller computed the files' sha256 from their bytes itself.
            last_check: raises what shall stop the commit at its last moment.

        Raises:
            ProposalInvalid, ChunksMissing, VersionExists, UploadNotFound, ManagerNotFound, AccessCodeRefused.
        """
        proposals.check(files)
        with self._database.read() as connection:
            upload = uploads.find(connection, name, lock=False)
            if upload.state == "open":
                versions.refuse_existing(connection, name.manager_id, name.model_name, upload.version)
        if upload.state == "committed":
            return self._committed(upload, access_code)
        rows = self._look_up(upload, files, access_code, any_chunk=any_chunk)
        draft = self._prepare(upload, files, rows, access_code, sha256_verified=sha256_verified)
        try:
            with self._database.write() as connection:
                version = self._record(connection, upload, draft, last_check)
        except DomainError:
            # Refused in the transaction, so for certain not recorded. After any other error that is not certain, and
            # a key destroyed would be a version lost: then collection decides.
            self._discard(draft)
            raise
        if version.uid == draft.version.uid:
            return version, draft.manifest
        self._discard(draft)
        return version, self._load(version, access_code)

    def rewrite(self, name: UploadName, files: Sequence[ProposedFile], old: Version) -> None:
        """Puts what came in an upload of the service's own in the place of a version: the same files, under new keys.

        The old ones are gone with the transaction. Raises VersionNotFound if the version is, ChunksMissing,
        UploadNotFound.
        """
        with self._database.read() as connection:
            upload = uploads.find(connection, name, lock=False)
        rows = self._look_up(upload, files, None, any_chunk=False)
        draft = self._prepare(upload, files, rows, None, sha256_verified=old.sha256_verified)
        try:
            with self._database.write() as connection:
                t.hold_references(connection, removing=True)
                self._check(connection, upload, draft)
                unneeded = versions.rewrite(connection, old, draft.version, [row.id for row in rows.values()])
                uploads.give_up_all(connection, name.creator)
        except DomainError:
            self._discard(draft)
            raise
        self._remove(unneeded)
        self._database.forget_deleted()

    def _committed(self, upload: Upload, access_code: AccessCode | None) -> tuple[Version, Manifest]:
        version = self._versions.by_uid(upload.version_uid)
        return version, self._load(version, access_code)

    def _look_up(
        self, upload: Upload, files: Sequence[ProposedFile], access_code: AccessCode | None, *, any_chunk: bool
    ) -> dict[bytes, ChunkRow]:
        """The rows of all chunks by plain digest. Raises ChunksMissing, and ProposalInvalid for a wrong length."""
        domain = uploads.open_domain(self._keys, upload, access_code)
        lengths: dict[bytes, int] = {}
        for file in files:
            for digest, length in zip(uploads.split(file.digests), file.lengths, strict=True):
                if lengths.setdefault(digest, length) != length:
                    raise ProposalInvalid("A chunk cannot have two lengths.", path=file.path)
        ids = {digest: domain.chunk_id(digest) for digest in lengths}
        with self._database.read() as connection:
            sent_in = None if any_chunk else upload.name.upload_id
            found = chunk_index.find(connection, upload.manager_id, ids.values(), sent_in=sent_in)
        missing = [digest for digest, chunk_id in ids.items() if chunk_id not in found]
        if missing:
            raise ChunksMissing(missing)
        rows = {digest: found[chunk_id] for digest, chunk_id in ids.items()}
        if any(row.plain_length != lengths[digest] for digest, row in rows.items()):
            raise ProposalInvalid("A chunk's length is not that of the bytes with this digest.")
        return rows

    def _prepare(
        self,
        upload: Upload,
        files: Sequence[ProposedFile],
        rows: dict[bytes, ChunkRow],
        access_code: AccessCode | None,
        *,
        sha256_verified: bool,
    ) -> _Draft:
        """Makes the data key and stores the manifest."""
        uid = new_id()
        key = self._data_key(upload, uid, access_code)
        manifest = Manifest(
            manager_id=upload.manager_id,
            model_name=upload.name.model_name,
            version=upload.version,
            version_id=uid,
            files=_manifest_files(files, rows),
            domain_key_id=upload.domain_key_id,
            data_key_id=key.key_id,
        )
        try:
            data = manifests.encode(manifest, key.key)
        except ValueError as error:
            raise InvalidArgument(f"This cannot be a version: {error}.", reason="FILES_INVALID") from None
        manifest_key = manifests.manifest_key(uid)
        self._store.put(manifest_key, data)
        version = Version(
            id=0,
            uid=uid,
            manager_id=upload.manager_id,
            model_name=upload.name.model_name,
            name=upload.version,
            size=sum(file.size for file in manifest.files),
            files_count=len(files),
            created_at=self._clock(),
            created_by=upload.name.creator,
            data_key_id=key.key_id,
            domain_key_id=upload.domain_key_id,
            manifest_key=manifest_key,
            manifest_digest=manifests.manifest_digest(data),
            sha256_verified=sha256_verified,
        )
        return _Draft(version, manifest, rows)

    def _data_key(self, upload: Upload, uid: str, access_code: AccessCode | None) -> WrappedKey:
        if upload.protected:
            return WrappedKey(upload.data_key_id, self._keys.data_key(upload, access_code))
        return self._keys.new_data_key(self._managers.get(upload.manager_id), uid)

    def _record(
        self, connection: sa.Connection, upload: Upload, draft: _Draft, last_check: Callable[[], None]
    ) -> Version:
        """The one transaction. Returns another version than the draft's if a commit of this upload was faster."""
        t.hold_references(connection)
        current = uploads.find(connection, upload.name)
        if current.state == "committed":
            return self._versions.by_uid(current.version_uid)
        self._check(connection, upload, draft)
        version = versions.insert(connection, draft.version, [row.id for row in draft.rows.values()])
        uploads.close_committed(connection, upload.name, version.uid)
        last_check()
        return version

    def _check(self, connection: sa.Connection, upload: Upload, draft: _Draft) -> None:
        """Raises unless the upload is open still and all that the draft refers to is there."""
        uploads.keep_open(connection, upload.name, self._clock())
        condemned.refuse_condemned(connection, draft.names)
        there = chunk_index.still_there(connection, list(draft.rows.values()))
        gone = [digest for digest, row in draft.rows.items() if row.id not in there]
        if gone:
            raise ChunksMissing(gone)

    def _discard(self, draft: _Draft) -> None:
        with self._database.write() as connection:
            t.hold_references(connection, removing=True)
            condemned.condemn(connection, draft.names, self._clock())
        self._remove(draft.names)


def _manifest_files(files: Sequence[ProposedFile], rows: Mapping[bytes, ChunkRow]) -> tuple[ManifestFile, ...]:
    refs = {
        digest: ChunkRef(row.chunk_id, row.blob_id, row.salt, row.plain_length, row.ciphertext_digest, row.codec)
        for digest, row in rows.items()
    }
    return tuple(
        ManifestFile(file.path, sum(file.lengths), file.sha256, tuple(refs[d] for d in uploads.split(file.digests)))
        for file in files
    )
