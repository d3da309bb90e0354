"""Deep rotation: every version is read, written into the manager's new dedup domain, and exchanged in one transaction.

A job is a row; whatever process has its lease works on it, version by version, and what a crash interrupts another
takes up where it was. Until a version is exchanged it is read under its old keys, from then on under its new ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from services.models import codecs, reencryptions, uploads
from services.models import tables as t
from services.models.commit import Committer
from services.models.manifest_store import ManifestStore
from services.models.manifests import ChunkRef, Manifest
from services.models.proposals import ProposedFile
from services.models.reads import Reader
from services.models.receive import Receiver
from services.models.reencryptions import DONE, FAILED, RUNNING
from services.models.uploads import UploadName
from services.models.version_keys import VersionKeys
from services.models.versions import Version, Versions
from services.shared.database import Database
from services.shared.errors import Aborted, DataLoss, DomainError, FailedPrecondition, NotFound
from services.shared.ids import new_id
from strongroom.chunking import digest

_LEASE = timedelta(seconds=60)
_RENEW = timedelta(seconds=15)
# Between two attempts, when stores or the secrets service do not answer; and how many there are.
_PAUSE = timedelta(seconds=10)
_ATTEMPTS = 360
_MOST_ERROR = 500
_COMPRESSION_LEVEL = 5


class Interrupted(Aborted):
    """The service is stopping, or another process has the job."""

    reason = "REENCRYPTION_INTERRUPTED"


@dataclass
class _Job:
    id: str
    manager_id: str
    model_name: str
    domain_key_id: str
    leased_until: datetime


class Reencryptor:
    """Does the work of re-encryptions. Several may run at a time, in one process or many."""

    def __init__(
        self,
        database: Database,
        keys: VersionKeys,
        versions: Versions,
        manifest_store: ManifestStore,
        reader: Reader,
        receiver: Receiver,
        committer: Committer,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._keys = keys
        self._versions = versions
        self._manifests = manifest_store
        self._reader = reader
        self._receiver = receiver
        self._committer = committer
        self._clock = clock

    def run(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Takes a job that nobody has and works on it to its end; False if there is none."""
        job = self._claim()
        if job is None:
            return False
        try:
            damaged = list(self._versions_of(job, stopping))
        except Interrupted:
            self._set(job, leased_until=self._clock())
        except (DomainError, OSError) as error:
            self._postpone(job, error)
        else:
            problem = f"Damaged, so not rewritten: {', '.join(damaged)}"[:_MOST_ERROR] if damaged else ""
            self._set(job, state=FAILED if damaged else DONE, error=problem, finished_at=self._clock())
        return True

    def _claim(self) -> _Job | None:
        now = self._clock()
        c = t.reencryptions.c
        with self._database.write() as connection:
            free = sa.select(t.reencryptions).where(c.state == RUNNING, c.leased_until <= now).order_by(c.id).limit(1)
            row = connection.execute(free.with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            job = _Job(row.id, row.manager_id, row.model_name, row.domain_key_id, now + _LEASE)
            changes = {"leased_until": job.leased_until, "attempts": row.attempts + 1}
            connection.execute(sa.update(t.reencryptions).where(c.id == row.id).values(changes))
            # What an attempt before this one was writing when it was interrupted.
            uploads.give_up_all(connection, _creator(job))
        return job

    def _versions_of(self, job: _Job, stopping: Callable[[], bool]) -> Iterator[str]:
        """Rewrites version after version; yields the names of those that can't be read."""
        damaged: set[str] = set()
        while True:
            query = reencryptions.pending(job.manager_id, job.model_name, job.domain_key_id)
            with self._database.read() as connection:
                uid = connection.scalar(query.where(t.versions.c.uid.not_in(damaged)).limit(1))
            if uid is None:
                return
            try:
                version = self._versions.by_uid(uid)
                self._rewrite(job, version, stopping)
            except DataLoss:
                damaged.add(uid)
                yield f"{version.model_name}@{version.name}"
            except NotFound:
                # Deleted meanwhile, or rewritten by another process; with the manager the job is gone too.
                self._renew(job)

    def _rewrite(self, job: _Job, version: Version, stopping: Callable[[], bool]) -> None:
        manifest = self._manifests.load(version, fresh=True)
        name = UploadName(version.manager_id, version.model_name, new_id(), _creator(job))
        with self._database.write() as connection:
            uploads.open_internal(
                connection,
                name,
                version.name,
                job.domain_key_id,
                compression_level=_level(manifest),
                now=self._clock(),
            )
        digests = self._copy(job, version, manifest, name, stopping)
        files = [
            ProposedFile(
                file.path,
                file.sha256,
                b"".join(digests[chunk.chunk_id] for chunk in file.chunks),
                [chunk.length for chunk in file.chunks],
            )
            for file in manifest.files
        ]
        self._committer.rewrite(name, files, version)
        with self._database.write() as connection:
            c = t.reencryptions.c
            done = {"versions_done": c.versions_done + 1, "bytes_done": c.bytes_done + version.size}
            connection.execute(sa.update(t.reencryptions).where(c.id == job.id).values(done))

    def _copy(
        self, job: _Job, version: Version, manifest: Manifest, name: UploadName, stopping: Callable[[], bool]
    ) -> dict[bytes, bytes]:
        """Writes every chunk of the version once; the plain digests by the old ids."""
        domain = self._keys.domain(version, None)
        digests: dict[bytes, bytes] = {}
        with self._receiver.ingest(name) as ingest:
            for chunk, row in self._reader.locate(version.manager_id, _distinct(manifest)):
                if stopping():
                    raise Interrupted("The service is stopping: the re-encryption goes on when it is back.")
                if self._clock() > job.leased_until - _LEASE + _RENEW:
                    self._renew(job)
                plain = self._reader.decrypt(domain, chunk, row)
                digests[chunk.chunk_id] = digest(plain)
                ingest.put(plain)
            ingest.finish()
        return digests

    def _renew(self, job: _Job) -> None:
        """Keeps the job. Raises Interrupted if another process has it."""
        until = self._clock() + _LEASE
        c = t.reencryptions.c
        this = sa.and_(c.id == job.id, c.state == RUNNING, c.leased_until == job.leased_until)
        with self._database.write() as connection:
            kept = connection.execute(sa.update(t.reencryptions).where(this).values(leased_until=until))
        if not kept.rowcount:
            raise Interrupted("Another process works on this re-encryption.")
        job.leased_until = until

    def _postpone(self, job: _Job, error: Exception) -> None:
        c = t.reencryptions.c
        with self._database.read() as connection:
            attempts = connection.scalar(sa.select(c.attempts).where(c.id == job.id)) or 0
        message = error.message if isinstance(error, DomainError) else "A store failed."
        if isinstance(error, FailedPrecondition) or attempts >= _ATTEMPTS:
            self._set(job, state=FAILED, error=message[:_MOST_ERROR], finished_at=self._clock())
        else:
            self._set(job, error=message[:_MOST_ERROR], leased_until=self._clock() + _PAUSE)

    def _set(self, job: _Job, **changes: object) -> None:
        """Changes the job's row, unless another process has it by now."""
        c = t.reencryptions.c
        this = sa.and_(c.id == job.id, c.leased_until == job.leased_until)
        with self._database.write() as connection:
            connection.execute(sa.update(t.reencryptions).where(this).values(changes))


def _distinct(manifest: Manifest) -> list[ChunkRef]:
    return list(dict.fromkeys(chunk for file in manifest.files for chunk in file.chunks))


def _level(manifest: Manifest) -> int:
    """Compressed, if anything in it was."""
    compressed = any(chunk.codec != codecs.PLAIN for file in manifest.files for chunk in file.chunks)
    return _COMPRESSION_LEVEL if compressed else 0


def _creator(job: _Job) -> str:
    """No principal has such an id, so none can name the upload."""
    return f"reencryption:{job.id}"
