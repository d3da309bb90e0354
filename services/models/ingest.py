"""From chunks as they arrive to durable packs.

    put ──► hash, deduplicate (one thread) ──► encrypt, write, seal (two threads, each with a pack of its own)

The caller only receives. Memory is bounded by one budget for the whole process: `put` waits while it is spent, and is
the only thing that waits for it, so what was taken in is always worked off.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore, Condition, Lock, Thread
from types import TracebackType

from services.models.chunk_keys import Domain
from services.models.pack_writer import MAX_GROUP, SCRATCH_BYTES, PackWriter, SealedPack, stored_size
from services.models.stores.store import Store
from services.shared.errors import Aborted, InvalidArgument
from strongroom.chunking import MAX_CHUNK, Buffer, digest

INGEST_BYTES = 128 * 1024 * 1024  # of all streams
STREAM_BYTES = 32 * 1024 * 1024  # of one: more does not make it faster, and it should not starve the others
_WRITERS = 2
# One `known` for so much; chunks that were waited for longer than so many seconds are not worth waiting for.
_BATCH_BYTES = 16 * 1024 * 1024
_BATCH_CHUNKS = 256
_BATCH_PAUSE = 0.03
_GROUP_BYTES = MAX_GROUP // 2  # written at once


class ByteBudget:
    """Bounds the memory of all uploads of a process: bytes waiting, and buffers to write from. Make one."""

    def __init__(self, capacity: int = INGEST_BYTES, buffers: int = 4) -> None:
        self._free = capacity
        self._capacity = capacity
        self._changed = Condition()
        self._turn = Lock()
        self._lent = BoundedSemaphore(buffers)
        self._buffers: list[memoryview] = []

    def acquire(self, count: int) -> None:
        """Waits until `count` bytes are free and takes them. More than there are at all are given when all are free."""
        with self._turn, self._changed:  # in turns, lest small requests starve a large one
            self._changed.wait_for(lambda: self._free >= min(count, self._capacity))
            self._free -= count

    def release(self, count: int) -> None:
        """Gives bytes back."""
        with self._changed:
            self._free += count
            self._changed.notify()

    @contextmanager
    def buffer(self) -> Iterator[memoryview]:
        """Lends SCRATCH_BYTES of page-aligned memory. Wait for nothing while you have it."""
        with self._lent:
            try:
                buffer = self._buffers.pop()
            except IndexError:
                buffer = memoryview(mmap.mmap(-1, SCRATCH_BYTES))
            try:
                yield buffer
            finally:
                self._buffers.append(buffer)


@dataclass(frozen=True)
class IngestTotals:
    """What came in and what was stored, in chunks and bytes; `bytes_stored` has encryption, padding and indexes."""

    chunks_received: int
    chunks_deduplicated: int
    bytes_received: int
    bytes_stored: int


@dataclass
class _Group:
    """Chunks written at once: ids, plaintexts and the stored size of all."""

    chunks: list[tuple[bytes, Buffer]] = field(default_factory=list)
    stored: int = 0


class Ingest:
    """One upload stream. A context manager: leaving it unfinished aborts. `put`, `finish` and `abort` from one thread.

    Args:
        known: which of these chunk ids are stored already, and leased for the caller by now. Called from one thread,
            with distinct ids; no id is stored, or taken for a duplicate within the stream, that was not asked for.
        sealed: a pack is durable; record it. Called one at a time, from threads of this object, before `finish`
            returns; what it raises is raised by `put` or `finish`.
        level: of compression, 0 to 9.
    """

    def __init__(
        self,
        store: Store,
        domain: Domain,
        *,
        known: Callable[[Sequence[bytes]], set[bytes]],
        sealed: Callable[[SealedPack], None],
        budget: ByteBudget,
        level: int = 0,
    ) -> None:
        self._store = store
        self._level = level
        self._domain = domain
        self._known = known
        self._sealed = sealed
        self._budget = budget
        self._share = _Share(budget)
        self._chunks: SimpleQueue[Buffer | None] = SimpleQueue()
        self._groups: SimpleQueue[_Group | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._error: BaseException | None = None
        self._recording = Lock()
        self._lock = Lock()  # of everything below
        self._unsealed: set[bytes] = set()
        self._received = self._bytes_received = self._deduplicated = self._bytes_stored = 0

    def put(self, chunk: Buffer) -> None:
        """Takes a chunk of 1 byte to 4 MiB, and waits while there is too much to do. Copied unless it is of `bytes`."""
        view = memoryview(chunk).cast("B")
        if not 0 < len(view) <= MAX_CHUNK:
            raise InvalidArgument(f"A chunk has 1 to {MAX_CHUNK} bytes.", reason="CHUNK_LENGTH")
        if not self._threads and self._error is None:
            self._start()
        self._share.acquire(stored_size(len(view)))
        if self._error is not None:
            raise self._error
        self._received += 1
        self._bytes_received += len(view)
        self._chunks.put(_kept(view))

    def finish(self) -> IngestTotals:
        """Waits until every chunk is durable and recorded. Raises what went wrong in any thread."""
        self._join()
        if self._error is not None:
            raise self._error
        self._error = Aborted("This upload stream is finished.")
        return IngestTotals(self._received, self._deduplicated, self._bytes_received, self._bytes_stored)

    def abort(self) -> None:
        """Stops, and removes what is not sealed; sealed packs stay. Does nothing after `finish`, or a second time."""
        self._fail(Aborted("This upload stream was aborted."))
        self._join()

    def __enter__(self) -> "Ingest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _start(self) -> None:
        work = [self._hash, *[self._write] * _WRITERS]
        self._threads = [Thread(target=self._guarded, args=[target], name="ingest", daemon=True) for target in work]
        for thread in self._threads:
            thread.start()

    def _join(self) -> None:
        self._chunks.put(None)
        for thread in self._threads:
            thread.join()
        self._share.close()
        self._chunks, self._groups = SimpleQueue(), SimpleQueue()  # after an error they hold chunks

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Keeps the first error and wakes everybody, to see it and stop."""
        with self._lock:
            self._error = self._error or error
        self._share.close()
        self._chunks.put(None)
        self._groups.put(None)

    def _hash(self) -> None:
        try:
            for batch in self._batches():
                for chunk_id in self._known(list(batch)) & batch.keys():
                    self._drop(batch.pop(chunk_id))
                with self._lock:
                    self._unsealed |= batch.keys()
                for group in _groups(batch):
                    self._groups.put(group)
        finally:
            self._groups.put(None)

    def _batches(self) -> Iterator[dict[bytes, Buffer]]:
        """New chunks by id, as they come, because one question for each would be slow.

        A batch ends also when nothing comes for a moment: who waits for the budget must not be waited for.
        """
        batch: dict[bytes, Buffer] = {}
        size = 0
        while self._error is None:
            try:
                chunk = self._chunks.get(timeout=_BATCH_PAUSE if batch else None)
            except Empty:
                chunk = b""
            if chunk is None:
                break
            if chunk:
                size += self._collect(chunk, batch)
            if batch and (not chunk or size >= _BATCH_BYTES or len(batch) >= _BATCH_CHUNKS):
                yield batch
                batch, size = {}, 0
        if batch and self._error is None:
            yield batch

    def _collect(self, chunk: Buffer, batch: dict[bytes, Buffer]) -> int:
        """Hashes a chunk and adds it to the batch, unless this stream has it already; returns the bytes added."""
        chunk_id = self._domain.chunk_id(digest(chunk))
        # Before `known` is asked: a chunk leaves this set only when it is recorded, and then `known` knows it.
        with self._lock:
            duplicate = chunk_id in batch or chunk_id in self._unsealed
        if duplicate:
            self._drop(chunk)
            return 0
        batch[chunk_id] = chunk
        return len(chunk)

    def _drop(self, duplicate: Buffer) -> None:
        self._deduplicated += 1
        self._share.release(stored_size(len(duplicate)))

    def _write(self) -> None:
        writer: PackWriter | None = None
        try:
            while (group := self._groups.get()) is not None and self._error is None:
                if writer is not None and not writer.has_room(group.stored, len(group.chunks)):
                    self._seal(writer)
                    writer = None
                if writer is None:
                    writer = PackWriter(self._store, self._domain, level=self._level)
                with self._budget.buffer() as scratch:
                    writer.append(group.chunks, scratch)
                self._share.release(group.stored)
            self._groups.put(None)  # for the other one
            if writer is not None and self._error is None:
                self._seal(writer)
        finally:
            if writer is not None:
                writer.discard()

    def _seal(self, writer: PackWriter) -> None:
        with self._budget.buffer() as scratch:
            pack = writer.seal(scratch)
        with self._recording:
            self._sealed(pack)
        with self._lock:
            self._unsealed.difference_update(chunk.chunk_id for chunk in pack.chunks)
            self._bytes_stored += pack.size


class _Share:
    """One stream's part of the budget: at most STREAM_BYTES, given back as a whole when the stream ends."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._changed = Condition()
        self._held = 0
        self._closed = False

    def acquire(self, count: int) -> None:
        """Waits for the stream's and for the process's limit; takes nothing once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._held + count <= STREAM_BYTES)
        self._budget.acquire(count)
        with self._changed:
            if not self._closed:
                self._held += count
                return
        self._budget.release(count)

    def release(self, count: int) -> None:
        with self._changed:
            if self._closed:
                return
            self._held -= count
            self._changed.notify()
        self._budget.release(count)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            held, self._held = self._held, 0
            self._changed.notify()
        self._budget.release(held)


def _kept(view: memoryview) -> Buffer:
    """The chunk for as long as it waits: the view itself if its bytes cannot change and it keeps little else alive."""
    whole = view.obj
    return view if isinstance(whole, bytes) and len(whole) <= 4 * len(view) else bytes(view)


def _groups(batch: dict[bytes, Buffer]) -> Iterator[_Group]:
    group = _Group()
    for chunk_id, plain in batch.items():
        stored = stored_size(len(plain))
        if group.stored and group.stored + stored > _GROUP_BYTES:
            yield group
            group = _Group()
        group.chunks.append((chunk_id, plain))
        group.stored += stored
    if group.chunks:
        yield group
