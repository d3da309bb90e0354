"""Reads: a range of a file, decrypted chunk by chunk."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from services.models import chunk_index, packs
from services.models.access_codes import AccessCode
from services.models.chunk_index import ChunkRow
from services.models.chunk_keys import Domain
from services.models.manifest_store import ManifestStore
from services.models.manifests import ChunkRef, ManifestFile
from services.models.read_ahead import read_ahead
from services.models.replication import ReplicatedStore
from services.models.stores.store import Store
from services.models.version_keys import VersionKeys
from services.models.versions import Version, Versions
from services.shared.database import Database
from services.shared.errors import DataLoss, NotFound, OutOfRange

# Chunks looked up at once.
_BATCH = 64
# Chunks decrypted while the ones before are on their way to the client.
_AHEAD = 2


class FileNotFound(NotFound):
    """The version has no file at that path."""

    reason = "FILE_NOT_FOUND"


class OffsetOutOfRange(OutOfRange):
    """The file ends before the offset."""

    reason = "OFFSET_OUT_OF_RANGE"


@dataclass(frozen=True)
class Slice:
    """A part of a chunk's plaintext."""

    chunk: ChunkRef
    start: int
    end: int


@dataclass(frozen=True)
class OpenRange:
    """A range of a file whose `length` is certain; `slices` are its parts in order."""

    version: Version
    length: int
    domain: Domain = field(repr=False)
    slices: Sequence[Slice] = field(repr=False)


class Reader:
    """Reads files of versions."""

    def __init__(
        self,
        database: Database,
        store: ReplicatedStore,
        keys: VersionKeys,
        versions: Versions,
        manifest_store: ManifestStore,
    ) -> None:
        self._database = database
        self._store = store
        self._keys = keys
        self._versions = versions
        self._manifests = manifest_store

    def preferring(self, provider: str) -> "Reader":
        """One that asks this store first (`ReplicatedStore.preferring`). Raises StoreUnknown."""
        store = self._store.preferring(provider)
        return Reader(self._database, store, self._keys, self._versions, self._manifests)

    def open(
        self,
        manager_id: str,
        model_name: str,
        version: str,
        path: str,
        offset: int,
        length: int | None,
        access_code: AccessCode | None = None,
    ) -> OpenRange:
        """A range of a file, cut off at the file's end.

        Raises ManagerNotFound, ModelNotFound, VersionNotFound, FileNotFound, OffsetOutOfRange, DataLoss,
        AccessCodeRefused.
        """
        found = self._versions.find(manager_id, model_name, version)
        file = next((file for file in self._manifests.load(found, access_code).files if file.path == path), None)
        if file is None:
            raise FileNotFound(f"Version '{found.name}' has no file at this path.", version=found.name)
        if offset > file.size:
            raise OffsetOutOfRange(f"The file has {file.size} bytes.", size=str(file.size))
        end = file.size if length is None else min(file.size, offset + length)
        domain = self._keys.domain(found, access_code)
        return OpenRange(found, end - offset, domain, slices(file, offset, end))

    def read(self, opened: OpenRange) -> Iterator[memoryview]:
        """The bytes of the range, in pieces of at most a chunk, each authenticated before it is yielded.

        That GCM accepts a blob proves its plaintext: the key is derived from the chunk's id and the salt in the
        authenticated manifest, the blob's id is associated data, so nothing but what was encrypted as this chunk, this
        time, opens. Hashing the plaintext once more would prove nothing further.

        Raises DataLoss with reason CHUNK_DAMAGED; VersionNotFound if the version is deleted meanwhile.
        """
        pieces = self._plaintexts(opened)
        return pieces if len(opened.slices) < _AHEAD else read_ahead(pieces, _AHEAD)

    def locate(self, manager_id: str, chunks: Iterable[ChunkRef]) -> Iterator[tuple[ChunkRef, ChunkRow | None]]:
        """The chunks with their rows; None where the index has none with the manifest's blob."""
        remaining = iter(chunks)
        while batch := list(islice(remaining, _BATCH)):
            with self._database.read() as connection:
                rows = chunk_index.find(connection, manager_id, {chunk.chunk_id for chunk in batch})
            for chunk in batch:
                row = rows.get(chunk.chunk_id)
                yield chunk, row if row is not None and row.blob_id == chunk.blob_id else None

    def decrypt(self, domain: Domain, chunk: ChunkRef, row: ChunkRow | None) -> bytes:
        """A chunk's plaintext. DataLoss with reason CHUNK_DAMAGED, whatever is wrong with it."""
        try:
            if row is None:
                raise _damaged()
            plain = self._store.sound(packs.pack_key(row.pack_id), partial(_decrypted, domain, chunk, row))
        except DataLoss:
            raise _damaged() from None
        if len(plain) != chunk.length:
            raise _damaged()
        return plain

    def _plaintexts(self, opened: OpenRange) -> Iterator[memoryview]:
        version = opened.version
        located = self.locate(version.manager_id, (part.chunk for part in opened.slices))
        for part, (chunk, row) in zip(opened.slices, located, strict=True):
            try:
                plain = self.decrypt(opened.domain, chunk, row)
            except DataLoss:
                if gone := self._versions.gone(version):
                    raise gone from None
                raise
            yield memoryview(plain)[part.start : part.end]


def slices(file: ManifestFile, start: int, end: int) -> list[Slice]:
    """The parts of the file's chunks that make up its bytes from `start` to `end`."""
    parts = []
    position = 0
    for chunk in file.chunks:
        first, last = max(start - position, 0), min(end - position, chunk.length)
        if first < last:
            parts.append(Slice(chunk, first, last))
        position += chunk.length
    return parts


def _decrypted(domain: Domain, chunk: ChunkRef, row: ChunkRow, store: Store) -> bytes:
    stored = packs.read_blob(store, row.pack_id, row.offset, row.stored_length)
    return packs.decrypt(domain, chunk.chunk_id, chunk.salt, chunk.blob_id, stored)


def _damaged() -> DataLoss:
    return DataLoss("Stored bytes are damaged: restore them from a copy.", reason="CHUNK_DAMAGED")
