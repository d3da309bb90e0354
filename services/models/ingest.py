"""From chunks as they arrive to durable packs: hash, deduplicate, encrypt, write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from services.models.chunk_keys import Domain
from services.models.pack_writer import SealedPack
from services.models.store_local import LocalStore
from strongroom.chunking import Buffer

INGEST_BYTES = 128 * 1024 * 1024


class ByteBudget:
    """Bounds the memory of all uploads of a process. Make one; `Ingest.put` waits while it is spent."""

    def __init__(self, capacity: int = INGEST_BYTES) -> None:
        self.capacity = capacity


@dataclass(frozen=True)
class IngestTotals:
    """What came in and what was stored, in chunks and bytes; `bytes_stored` has encryption, padding and indexes."""

    chunks_received: int
    chunks_deduplicated: int
    bytes_received: int
    bytes_stored: int


class Ingest:
    """One upload stream; a context manager that aborts unless finished.

    Args:
        known: of these distinct chunk ids, which are stored already (and leased for the caller by now). Called in batches
            from one thread; every chunk id that comes in is asked for at least once, before it is stored.
        sealed: a pack is durable now; record it. Called one at a time, from threads of this object, before `finish` returns.
            If it raises, `finish` raises that.
    """

    def __init__(
        self,
        store: LocalStore,
        domain: Domain,
        *,
        known: Callable[[Sequence[bytes]], set[bytes]],
        sealed: Callable[[SealedPack], None],
        budget: ByteBudget,
    ) -> None:
        raise NotImplementedError

    def put(self, chunk: Buffer) -> None:
        """Takes a chunk of 1 byte to 4 MiB; copied unless it is (a view of) bytes. Raises what a thread of this stream raised."""
        raise NotImplementedError

    def finish(self) -> IngestTotals:
        """Waits until every chunk is durable and recorded."""
        raise NotImplementedError

    def abort(self) -> None:
        """Stops and removes what is not sealed; may be called again. Sealed packs stay."""
        raise NotImplementedError

    def __enter__(self) -> "Ingest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
