"""Ingest: chunks in, durable packs out; bounded in memory, stored once, and nothing left behind when it fails."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.models import packs
from services.models.chunk_keys import Domain
from services.models.ingest import ByteBudget, Ingest, IngestTotals
from services.models.pack_writer import SCRATCH_BYTES, SealedPack, StoredChunk
from services.models.stores.local import LocalStore
from services.shared.errors import Aborted, InvalidArgument
from strongroom.chunking import MAX_CHUNK, digest

pytestmark = pytest.mark.timeout(60)

_DOMAIN = Domain(bytes(range(32)), "domain-key")
_MIB = 1 << 20


@dataclass
class _Records:
    """What the service would keep in its database: chunks of sealed packs, and every question that was asked."""

    chunks: dict[bytes, tuple[SealedPack, StoredChunk]] = field(default_factory=dict)
    sealed: list[SealedPack] = field(default_factory=list)
    asked: list[list[bytes]] = field(default_factory=list)

    def known(self, chunk_ids: Sequence[bytes]) -> set[bytes]:
        self.asked.append(list(chunk_ids))
        return {chunk_id for chunk_id in chunk_ids if chunk_id in self.chunks}

    def record(self, pack: SealedPack) -> None:
        self.sealed.append(pack)
        for chunk in pack.chunks:
            self.chunks[chunk.chunk_id] = (pack, chunk)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "weights")


def _ingest(store: LocalStore, records: _Records, budget: ByteBudget | None = None) -> Ingest:
    return Ingest(store, _DOMAIN, known=records.known, sealed=records.record, budget=budget or ByteBudget())


def _send(stream: Ingest, chunks: Iterable[bytes], *, broken: bool = False) -> IngestTotals:
    with stream:
        for chunk in chunks:
            stream.put(chunk)
        if broken:
            raise RuntimeError("the client is gone")
        return stream.finish()


def _read(store: LocalStore, records: _Records, plain: bytes) -> bytes:
    pack, chunk = records.chunks[_DOMAIN.chunk_id(digest(plain))]
    stored = packs.read_blob(store, pack.pack_id, chunk.offset, chunk.stored_length)
    return packs.decrypt(_DOMAIN, chunk.chunk_id, chunk.salt, chunk.blob_id, stored)


def _random_chunks(count: int, length: int = 100_000, seed: int = 1) -> list[bytes]:
    chance = random.Random(seed)
    return [chance.randbytes(length) for _ in range(count)]


def _idle(budget: ByteBudget) -> bool:
    return budget._free == budget._capacity


def _no_threads() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name == "ingest"]


def test_chunks_are_durable_and_recorded_when_finish_returns(store: LocalStore) -> None:
    records, budget = _Records(), ByteBudget()
    chunks = [*_random_chunks(60), b"x", bytes(MAX_CHUNK)]
    totals = _send(_ingest(store, records, budget), chunks)
    assert [_read(store, records, chunk) for chunk in chunks] == chunks
    assert (totals.chunks_received, totals.chunks_deduplicated) == (62, 0)
    assert totals.bytes_received == sum(map(len, chunks))
    assert totals.bytes_stored == sum(each.size for each in store.list())
    assert {each.key for each in store.list()} == {packs.pack_key(pack.pack_id) for pack in records.sealed}
    assert _idle(budget)
    assert _no_threads()


def test_nothing_in_nothing_out(store: LocalStore) -> None:
    records = _Records()
    with _ingest(store, records) as stream:
        assert stream.finish().chunks_received == 0
    assert not records.sealed
    assert not list(store.list())


def test_small_upload_is_one_pack(store: LocalStore) -> None:
    records = _Records()
    _send(_ingest(store, records), _random_chunks(20, 1000))
    assert len(records.sealed) == 1


def test_pack_is_sealed_when_it_is_full(store: LocalStore) -> None:
    records, base = _Records(), bytearray(random.Random(2).randbytes(_MIB))
    with _ingest(store, records) as stream:
        for number in range(150):
            base[:4] = number.to_bytes(4, "little")
            stream.put(bytes(base))
        stream.finish()
    assert 3 <= len(records.sealed) <= 4
    for pack in records.sealed:
        index = packs.read_index(store, pack.pack_id)
        assert index.size == pack.size
        assert index.entries[-1].offset + index.entries[-1].stored_length <= packs.MAX_PACK
        assert packs.damaged(store, pack.pack_id) == []


def test_each_chunk_is_stored_once(store: LocalStore) -> None:
    records, (first, second, third) = _Records(), _random_chunks(3)
    with _ingest(store, records) as stream:
        stream.put(first)
        stream.finish()
    totals = _send(_ingest(store, records), (first, second, second, third, first, second))
    assert totals.chunks_deduplicated == 4
    assert sum(len(pack.chunks) for pack in records.sealed) == 3


def test_duplicate_that_comes_after_its_pack_was_sealed_is_stored_once(store: LocalStore) -> None:
    records, chunks = _Records(), _random_chunks(150, _MIB)
    totals = _send(_ingest(store, records), chunks * 2)
    assert totals.chunks_deduplicated == 150
    assert sum(len(pack.chunks) for pack in records.sealed) == 150


def test_every_id_is_asked_for_in_batches(store: LocalStore) -> None:
    records, chunks = _Records(), _random_chunks(500, 1000)
    _send(_ingest(store, records), chunks)
    assert {each for batch in records.asked for each in batch} == {_DOMAIN.chunk_id(digest(chunk)) for chunk in chunks}
    assert all(len(set(batch)) == len(batch) for batch in records.asked)
    assert len(records.asked) <= 50


def test_callers_buffer_may_be_used_again(store: LocalStore) -> None:
    records, buffer = _Records(), bytearray(50_000)
    frame = b"".join(_random_chunks(1, 50_000))
    with _ingest(store, records) as stream:
        for fill in range(1, 30):
            buffer[:] = bytes([fill]) * 50_000
            stream.put(memoryview(buffer))
        stream.put(memoryview(frame)[:25_000])
        stream.put(memoryview(frame)[25_000:25_010])  # would keep the whole frame alive: copied
        stream.finish()
    assert all(_read(store, records, bytes([fill]) * 50_000) for fill in range(1, 30))
    assert _read(store, records, frame[:25_000]) == frame[:25_000]
    assert _read(store, records, frame[25_000:25_010]) == frame[25_000:25_010]


@pytest.mark.parametrize("length", [0, MAX_CHUNK + 1])
def test_chunk_of_impossible_length_is_refused(store: LocalStore, length: int) -> None:
    with _ingest(store, _Records()) as stream, pytest.raises(InvalidArgument):
        stream.put(bytes(length))


def test_memory_is_bounded_and_streams_share_it_without_deadlock(store: LocalStore) -> None:
    budget, everything = ByteBudget(6 * _MIB, buffers=1), _Records()
    recorded = threading.Lock()
    most = 0

    def slowly(chunk_ids: Sequence[bytes]) -> set[bytes]:
        nonlocal most
        time.sleep(0.002)
        most = max(most, budget._capacity - budget._free)
        return set()

    def record(pack: SealedPack) -> None:
        with recorded:
            everything.record(pack)

    def upload(seed: int) -> None:
        _send(Ingest(store, _DOMAIN, known=slowly, sealed=record, budget=budget), _random_chunks(16, 2 * _MIB, seed))

    _together([lambda seed=seed: upload(seed) for seed in range(4)])
    assert len(everything.chunks) == 64
    assert most <= 6 * _MIB
    assert _idle(budget)


def test_request_for_more_than_the_budget_gets_all_of_it() -> None:
    budget = ByteBudget(100)
    budget.acquire(1000)
    waiting = threading.Thread(target=budget.acquire, args=[1])
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    budget.release(1000)
    waiting.join()


def test_leaving_without_finish_removes_what_was_written(store: LocalStore) -> None:
    budget = ByteBudget()
    with pytest.raises(RuntimeError, match="the client is gone"):
        _send(_ingest(store, _Records(), budget), _random_chunks(30, _MIB), broken=True)
    assert not list(store.unfinished())
    assert not list(store.list())
    assert _idle(budget)
    assert _no_threads()


def test_ended_stream_takes_nothing_more(store: LocalStore) -> None:
    stream = _ingest(store, _Records())
    stream.put(b"x")
    stream.abort()
    stream.abort()
    with pytest.raises(Aborted):
        stream.put(b"y")
    with pytest.raises(Aborted):
        stream.finish()
    finished = _ingest(store, _Records())
    finished.finish()
    with pytest.raises(Aborted):
        finished.put(b"y")
    assert _no_threads()


def _fail_when(count: int) -> Callable[[], None]:
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError("the database is gone")

    return step


@pytest.mark.parametrize("where", ["known", "sealed"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_error_of_a_callback_ends_the_stream(store: LocalStore, where: str, count: int) -> None:
    budget, records, step = ByteBudget(), _Records(), _fail_when(count)

    def known(chunk_ids: Sequence[bytes]) -> set[bytes]:
        if where == "known":
            step()
        return records.known(chunk_ids)

    def sealed(pack: SealedPack) -> None:
        if where == "sealed":
            step()
        records.record(pack)

    stream = Ingest(store, _DOMAIN, known=known, sealed=sealed, budget=budget)
    with pytest.raises(ConnectionError):
        _send(stream, _random_chunks(200, _MIB))
    assert not list(store.unfinished())
    assert _idle(budget)
    assert _no_threads()
    for pack in records.sealed:  # what was recorded is whole
        assert packs.damaged(store, pack.pack_id) == []


def test_failed_stream_frees_the_budget_for_others(store: LocalStore) -> None:
    budget, records = ByteBudget(4 * _MIB), _Records()

    def broken(chunk_ids: Sequence[bytes]) -> set[bytes]:
        raise ConnectionError("the database is gone")

    def fail() -> None:
        stream = Ingest(store, _DOMAIN, known=broken, sealed=records.record, budget=budget)
        with pytest.raises(ConnectionError):
            _send(stream, _random_chunks(40, _MIB))

    def succeed() -> None:
        _send(_ingest(store, records, budget), _random_chunks(10, _MIB, seed=9))

    _together([fail, fail, succeed])
    assert len(records.chunks) == 10
    assert _idle(budget)


def test_full_disk_ends_the_stream_and_leaves_no_temporary(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: writing fails in the middle of a pack."""
    program = """
import os, resource, sys
from pathlib import Path
from services.models.chunk_keys import Domain
from services.models.ingest import ByteBudget, Ingest
from services.models.stores.local import LocalStore
from services.models.stores.store import StoreFull
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
store = LocalStore(Path(sys.argv[1]))
domain, budget = Domain(bytes(32), "key"), ByteBudget()
try:
    with Ingest(store, domain, known=lambda ids: set(), sealed=lambda pack: None, budget=budget) as stream:
        for _ in range(40):
            stream.put(os.urandom(1 << 20))
        stream.finish()
except StoreFull as error:
    print(error.error_reason, len(list(store.unfinished())), len(list(store.list())))
"""
    for limit in (1000, 9 * _MIB, 17 * _MIB):
        arguments = [sys.executable, "-c", program, str(tmp_path / str(limit)), str(limit)]
        ended = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
        assert ended.stdout == "STORE_FULL 0 0\n"


def test_lent_buffers_are_page_aligned_and_distinct() -> None:
    budget = ByteBudget(buffers=2)
    with budget.buffer() as first, budget.buffer() as second:
        assert len(first) == len(second) == SCRATCH_BYTES
        first[:1], second[:1] = b"1", b"2"
        assert first[:1] == b"1"
    with budget.buffer() as again:
        assert again is first or again is second


def _together(work: list[Callable[[], None]]) -> None:
    errors: list[BaseException] = []

    def run(each: Callable[[], None]) -> None:
        try:
            each()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[each]) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
