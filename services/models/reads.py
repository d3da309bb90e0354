"""Reads: a range of a file, decrypted chunk by chunk."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from services.models import chunk_index, codecs, packs, tensors
from services.models.access_codes import AccessCode
from services.models.chunk_index import ChunkRow
from services.models.chunk_keys import Domain
from services.models.manifest_store import ManifestStore
from services.models.manifests import ChunkRef, Manifest, ManifestFile
from services.models.read_ahead import read_ahead
from services.models.replication import ReplicatedStore
from services.models.stores.store import Store
from services.models.tensors import Tensor
from services.models.version_keys import VersionKeys
from services.models.versions import Version, Versions
from services.shared.database import Database
from services.shared.errors import DataLoss, InvalidArgument, NotFound, OutOfRange
from strongroom.chunking import MAX_CHUNK, Buffer

# Chunks looked up at once.
_BATCH = 64
# Chunks decrypted while the ones before are on their way to the client.
_AHEAD = 2
# Bytes of a message: measured, larger ones make nothing faster, smaller ones cost more.
_MESSAGE_LEAST = 2 << 20
# A gRPC client takes 4 MiB with what is around the data, unless it is told otherwise.
_MESSAGE_MOST = MAX_CHUNK - 4096


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
    tensor: Tensor | None = None


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
        *,
        tensor: str = "",
        more_paths: Sequence[str] = (),
    ) -> OpenRange:
        """A range of a file, or of the tensor of that name in it, cut off at its end; or several files, one by one.

        Raises ManagerNotFound, ModelNotFound, VersionNotFound, FileNotFound, OffsetOutOfRange, NotSafetensors,
        TensorNotFound, DataLoss, AccessCodeRefused.
        """
        found = self._versions.find(manager_id, model_name, version)
        files = _files(found, self._manifests.load(found, access_code), [path, *more_paths])
        domain = self._keys.domain(found, access_code)

        if more_paths:
            if offset or length is not None or tensor:
                message = "Of several files no range can be read: ask for each, or for all of them."
                raise InvalidArgument(message, reason="RANGE_OF_MANY")
            parts = [part for file in files for part in slices(file, 0, file.size)]
            return OpenRange(found, sum(file.size for file in files), domain, parts)
        (file,) = files

        def part(start: int, end: int) -> OpenRange:
            return OpenRange(found, end - start, domain, slices(file, start, end))

        if not tensor:
            return part(*_clipped("file", 0, file.size, offset, length))
        place = tensors.find(tensor, file.size, lambda start, end: b"".join(self.read(part(start, end))))
        return replace(part(*_clipped("tensor", place.begin, place.end, offset, length)), tensor=place)

    def read(self, opened: OpenRange) -> Iterator[memoryview]:
        """The bytes of the range, in pieces of at most a chunk, each authenticated before it is yielded.

        That GCM accepts a blob proves its plaintext: the key is derived from the chunk's id and the salt in the
        authenticated manifest, the blob's id is associated data, so nothing but what was encrypted as this chunk, this
        time, opens. Hashing the plaintext once more would prove nothing further.

        Raises DataLoss with reason CHUNK_DAMAGED; VersionNotFound if the version is deleted meanwhile.
        """
        pieces = self._plaintexts(opened)
        return pieces if len(opened.slices) < _AHEAD else read_ahead(pieces, _AHEAD)

    def messages(self, opened: OpenRange, encode: Callable[[memoryview], bytes]) -> Iterator[bytes]:
        """The same bytes, `encode`d in messages of 2 to 4 MiB, the last one less: `encode` copies what it is given.

        Decrypted straight into the message, which halves the cost of it.
        """
        messages = self._encoded(opened, encode)
        return messages if len(opened.slices) < _AHEAD else read_ahead(messages, _AHEAD)

    def locate(self, manager_id: str, chunks: Iterable[ChunkRef]) -> Iterator[tuple[ChunkRef, ChunkRow | None]]:
        """The chunks with their rows; None where the index has none with the manifest's blob."""
        remaining = iter(chunks)
        while batch := list(islice(remaining, _BATCH)):
            with self._database.read() as connection:
                rows = chunk_index.find(connection, manager_id, {chunk.chunk_id for chunk in batch})
            for chunk in batch:
                row = rows.get(chunk.chunk_id)
                yield chunk, row if row is not None and row.blob_id == chunk.blob_id else None

    def decrypt(self, domain: Domain, chunk: ChunkRef, row: ChunkRow | None) -> Buffer:
        """A chunk's plaintext. DataLoss with reason CHUNK_DAMAGED, whatever is wrong with it."""
        try:
            if row is None:
                raise _damaged()
            encoded = self._store.sound(packs.pack_key(row.pack_id), partial(_decrypted, domain, chunk, row))
            return codecs.expand(chunk.codec, encoded, chunk.length)
        except DataLoss:
            raise _damaged() from None

    def _decrypt_into(self, domain: Domain, chunk: ChunkRef, row: ChunkRow | None, room: memoryview) -> None:
        """As `decrypt`, into `room`, which is as long as the chunk."""
        if row is not None and chunk.codec == codecs.PLAIN and row.stored_length == chunk.length + packs.TAG_BYTES:
            with suppress(DataLoss):  # another copy may be sound
                stored = packs.read_blob(self._store, row.pack_id, row.offset, row.stored_length)
                packs.decrypt_into(domain, chunk.chunk_id, chunk.salt, chunk.blob_id, stored, room)
                return
        room[:] = self.decrypt(domain, chunk, row)

    def _plaintexts(self, opened: OpenRange) -> Iterator[memoryview]:
        for part, row in self._located(opened):
            with self._unless_deleted(opened.version):
                plain = self.decrypt(opened.domain, part.chunk, row)
            yield memoryview(plain)[part.start : part.end]

    def _encoded(self, opened: OpenRange, encode: Callable[[memoryview], bytes]) -> Iterator[bytes]:
        block = memoryview(bytearray(min(MAX_CHUNK, opened.length)))
        filled = 0
        for part, row in self._located(opened):
            length = part.end - part.start
            if filled + length > len(block):
                yield from _parted(block[:filled], encode)
                filled = 0
            room = block[filled : filled + length]
            with self._unless_deleted(opened.version):
                if length == part.chunk.length:
                    self._decrypt_into(opened.domain, part.chunk, row, room)
                else:
                    room[:] = memoryview(self.decrypt(opened.domain, part.chunk, row))[part.start : part.end]
            filled += length
            if filled >= _MESSAGE_LEAST:
                yield from _parted(block[:filled], encode)
                filled = 0
        if filled:
            yield from _parted(block[:filled], encode)

    def _located(self, opened: OpenRange) -> Iterator[tuple[Slice, ChunkRow | None]]:
        located = self.locate(opened.version.manager_id, (part.chunk for part in opened.slices))
        for part, (_, row) in zip(opened.slices, located, strict=True):
            yield part, row

    @contextmanager
    def _unless_deleted(self, version: Version) -> Iterator[None]:
        """Says that the version is gone, deleted or rewritten, where it is: then its chunks are, too."""
        try:
            yield
        except DataLoss:
            if gone := self._versions.gone(version):
                raise gone from None
            raise


def _parted(data: memoryview, encode: Callable[[memoryview], bytes]) -> Iterator[bytes]:
    """The data as one message, or as two if it is that of the largest chunks."""
    for start in range(0, len(data), _MESSAGE_MOST):
        yield encode(data[start : start + _MESSAGE_MOST])


def _files(version: Version, manifest: Manifest, paths: Sequence[str]) -> list[ManifestFile]:
    wanted = set(paths)
    found = {file.path: file for file in manifest.files if file.path in wanted}
    if len(found) != len(wanted):
        raise FileNotFound(f"Version '{version.name}' has no file at this path.", version=version.name)
    return [found[path] for path in paths]


def _clipped(what: str, begin: int, end: int, offset: int, length: int | None) -> tuple[int, int]:
    """The range of `length` bytes from `offset` on within what lies from `begin` to `end`."""
    if offset > end - begin:
        raise OffsetOutOfRange(f"The {what} has {end - begin} bytes.", size=str(end - begin))
    start = begin + offset
    return start, end if length is None else min(end, start + length)


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


def within(opened: OpenRange, start: int, end: int) -> OpenRange:
    """The bytes from `start` to `end` of an open range, for which no manifest is read and no key asked for again."""
    parts = []
    position = 0
    for part in opened.slices:
        first, last = part.start + max(start - position, 0), part.start + min(end - position, part.end - part.start)
        if first < last:
            parts.append(Slice(part.chunk, first, last))
        position += part.end - part.start
    return replace(opened, length=min(end, position) - start, slices=parts)


def _decrypted(domain: Domain, chunk: ChunkRef, row: ChunkRow, store: Store) -> bytes:
    stored = packs.read_blob(store, row.pack_id, row.offset, row.stored_length)
    return packs.decrypt(domain, chunk.chunk_id, chunk.salt, chunk.blob_id, stored, chunk.codec)


def _damaged() -> DataLoss:
    return DataLoss("Stored bytes are damaged: restore them from a copy.", reason="CHUNK_DAMAGED")
