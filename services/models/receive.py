"""Receiving: from chunks or plain bytes as they arrive to rows and packs."""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from services.models import chunk_index, condemned, proposals, uploads
from services.models import tables as t
from services.models.access_codes import AccessCode
from services.models.commit import Committer
from services.models.ingest import ByteBudget, Ingest
from services.models.manifests import Manifest
from services.models.pack_writer import SealedPack
from services.models.packs import pack_key
from services.models.proposals import ProposedFile
from services.models.stores.store import Store
from services.models.uploads import UploadName, Uploads
from services.models.version_keys import VersionKeys
from services.models.versions import Version
from services.shared.database import Database
from services.shared.errors import DomainError
from strongroom.chunking import Buffer, Chunker, digest

# Chunks that wait to be hashed: 4 MiB each at most.
_WAITING = 4


class Receiver:
    """Opens the way of an upload's chunks into the store."""

    def __init__(
        self,
        database: Database,
        store: Store,
        keys: VersionKeys,
        uploads: Uploads,
        budget: ByteBudget,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._keys = keys
        self._uploads = uploads
        # Whoever holds bytes of an upload holds as many of these.
        self.budget = budget
        self._clock = clock

    def ingest(self, name: UploadName, access_code: AccessCode | None = None) -> Ingest:
        """A stream of chunks into an open upload, which holds them from then on.

        Raises UploadNotFound, AccessCodeRefused.
        """
        with self._database.write() as connection:
            upload = uploads.keep_open(connection, name, self._clock())
        domain = uploads.open_domain(self._keys, upload, access_code)

        def sealed(pack: SealedPack) -> None:
            with self._database.write() as connection:
                t.hold_references(connection)
                uploads.keep_open(connection, name, self._clock())
                condemned.refuse_condemned(connection, [pack_key(pack.pack_id)])
                chunk_index.record_pack(connection, name.manager_id, name.upload_id, pack, self._clock())

        return Ingest(
            self._store,
            domain,
            known=lambda chunk_ids: self._uploads.hold_sent(name, chunk_ids),
            sealed=sealed,
            budget=self.budget,
            level=upload.compression_level,
        )


@dataclass(frozen=True)
class FileTarget:
    """Where a plain file goes: a version of which it is the only one."""

    manager_id: str
    model_name: str
    version: str
    path: str


class FileReceiver:
    """Stores plain files, cutting and hashing them here."""

    def __init__(self, receiver: Receiver, uploads: Uploads, committer: Committer) -> None:
        self._receiver = receiver
        self._uploads = uploads
        self._committer = committer

    def store(
        self,
        creator: str,
        target: FileTarget,
        body: Iterator[Buffer],
        still_there: Callable[[], None],
        *,
        access_code: AccessCode | None = None,
        compression_level: int | None = None,
    ) -> tuple[Version, Manifest]:
        """Stores the bytes of `body`, in pieces of any size, and commits them as a version.

        `still_there` raises if the client has gone: called last, because a body that was cut looks like one that ended.
        Raises as Uploads.create and Committer.commit; whatever is raised, there is no version.
        """
        return self.store_all(
            creator,
            target.manager_id,
            target.model_name,
            target.version,
            [(target.path, body)],
            still_there,
            access_code=access_code,
            compression_level=compression_level,
        )

    def store_all(
        self,
        creator: str,
        manager_id: str,
        model_name: str,
        version: str,
        files: Iterable[tuple[str, Iterator[Buffer]]],
        still_there: Callable[[], None],
        *,
        access_code: AccessCode | None = None,
        compression_level: int | None = None,
    ) -> tuple[Version, Manifest]:
        """The same with several files, path and body, which are taken one after another."""
        upload, _ = self._uploads.create(
            creator,
            manager_id,
            model_name,
            version,
            resumable=False,
            access_code=access_code,
            compression_level=compression_level,
        )
        try:
            received = []
            for path, body in files:
                proposals.check_path(path)
                received.append(self._receive(upload.name, path, body, access_code))
            return self._committer.commit(
                upload.name,
                received,
                any_chunk=False,
                access_code=access_code,
                sha256_verified=True,
                last_check=still_there,
            )
        except BaseException:
            with suppress(DomainError):
                self._uploads.abort(upload.name)
            raise

    def _receive(
        self, name: UploadName, path: str, body: Iterator[Buffer], access_code: AccessCode | None
    ) -> ProposedFile:
        chunker = Chunker(path)
        with self._receiver.ingest(name, access_code) as ingest, _FileHasher(self._receiver.budget) as hasher:
            for chunk in _chunks(chunker, body):
                kept = bytes(chunk)
                ingest.put(kept)
                hasher.put(kept)
            ingest.finish()
            return hasher.file(path)


def _chunks(chunker: Chunker, body: Iterator[Buffer]) -> Iterator[memoryview]:
    for piece in body:
        yield from chunker.feed(piece)
    yield from chunker.finish()


class _FileHasher:
    """Computes a file's sha256 and its chunks' digests in a thread of its own: SHA-256 alone costs as much as all the
    rest of the way. What waits for it is of the budget of all uploads: it works it off whoever waits for that."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._chunks: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._sha256 = hashlib.sha256()
        self._digests = bytearray()
        self._lengths: list[int] = []
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)

    def put(self, chunk: bytes) -> None:
        self._budget.acquire(len(chunk))
        self._chunks.put(chunk)

    def file(self, path: str) -> ProposedFile:
        """The file, of which every chunk was put."""
        self._stop()
        return ProposedFile(path, self._sha256.digest(), bytes(self._digests), tuple(self._lengths))

    def __enter__(self) -> "_FileHasher":
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._chunks.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._sha256.update(chunk)
            self._digests += digest(chunk)
            self._lengths.append(len(chunk))
            self._budget.release(len(chunk))
