"""Packs: every change of a stored byte is found, and no wrong byte is ever returned."""

import mmap
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from services.models import packs
from services.models.chunk_keys import Domain
from services.models.pack_writer import MAX_GROUP, SCRATCH_BYTES, PackWriter, SealedPack, StoredChunk, stored_size
from services.models.packs import PackIndex
from services.models.stores.local import LocalStore
from services.shared.errors import DataLoss
from strongroom.chunking import MAX_CHUNK, digest
from tests.damage import damaged

_DOMAIN = Domain(bytes(range(32)), "domain-key")
_LENGTHS = [1, 100, 4080, 4081, 4096, 60_000, 8176]


class _Written(NamedTuple):
    store: LocalStore
    path: Path
    pack: SealedPack
    plain: list[bytes]
    original: bytes
    index: PackIndex


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> _Written:
    folder = tmp_path_factory.mktemp("weights")
    store, chance = LocalStore(folder), random.Random(5)
    plain = [chance.randbytes(length) for length in _LENGTHS]
    pack = _write(store, plain)
    path = folder / packs.pack_key(pack.pack_id)
    return _Written(store, path, pack, plain, path.read_bytes(), packs.read_index(store, pack.pack_id))


def _write(store: LocalStore, plain: list[bytes], domain: Domain = _DOMAIN) -> SealedPack:
    scratch = memoryview(mmap.mmap(-1, SCRATCH_BYTES))
    writer = PackWriter(store, domain)
    writer.append([(domain.chunk_id(digest(chunk)), chunk) for chunk in plain], scratch)
    return writer.seal(scratch)


def _read(written: _Written, chunk: StoredChunk) -> bytes:
    stored = packs.read_blob(written.store, written.pack.pack_id, chunk.offset, chunk.stored_length)
    return packs.decrypt(_DOMAIN, chunk.chunk_id, chunk.salt, chunk.blob_id, stored)


def _lost(reason: str) -> "pytest.RaisesExc[DataLoss]":
    return pytest.raises(DataLoss, check=lambda error: error.error_reason == reason)


def test_chunks_read_back(written: _Written) -> None:
    written.path.write_bytes(written.original)
    assert [_read(written, chunk) for chunk in written.pack.chunks] == written.plain
    assert written.index.size == written.pack.size == len(written.original)
    assert [entry.blob_id for entry in written.index.entries] == [chunk.blob_id for chunk in written.pack.chunks]
    assert packs.damaged(written.store, written.pack.pack_id) == []


def test_largest_chunk_fits(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    plain = [bytes(MAX_CHUNK), b"next"]
    assert sum(stored_size(len(chunk)) for chunk in plain) <= MAX_GROUP
    pack = _write(store, plain)
    for chunk, expected in zip(pack.chunks, plain, strict=True):
        stored = packs.read_blob(store, pack.pack_id, chunk.offset, chunk.stored_length)
        assert packs.decrypt(_DOMAIN, chunk.chunk_id, chunk.salt, chunk.blob_id, stored) == expected


def test_small_chunks_share_blocks_also_across_appends(tmp_path: Path) -> None:
    """What is written is whole blocks all the same, of aligned memory."""
    store, chance = LocalStore(tmp_path), random.Random(6)
    groups = [[chance.randbytes(chance.choice([1, 100, 1000, 4079, 4080, 5000])) for _ in range(20)] for _ in range(5)]
    scratch = memoryview(mmap.mmap(-1, SCRATCH_BYTES))
    writer = PackWriter(store, _DOMAIN)
    for group in groups:
        writer.append([(_DOMAIN.chunk_id(digest(chunk)), chunk) for chunk in group], scratch)
    pack = writer.seal(scratch)
    assert packs.damaged(store, pack.pack_id) == []
    for chunk, expected in zip(pack.chunks, (chunk for group in groups for chunk in group), strict=True):
        stored = packs.read_blob(store, pack.pack_id, chunk.offset, chunk.stored_length)
        assert packs.decrypt(_DOMAIN, chunk.chunk_id, chunk.salt, chunk.blob_id, stored) == expected
    assert any(chunk.offset % packs.BLOCK for chunk in pack.chunks)
    assert all(chunk.offset % packs.BLOCK == 0 for chunk in pack.chunks if chunk.stored_length >= packs.BLOCK)


def test_two_thousand_tiny_files_take_little_more_than_they_have(tmp_path: Path) -> None:
    pack = _write(LocalStore(tmp_path), [number.to_bytes(4, "little") * 25 for number in range(2000)])
    assert pack.size < 400_000  # 116 bytes of blob and 64 of index each; it was 8 MB with a block each


def test_as_many_blobs_as_an_index_may_name_fill_a_pack(tmp_path: Path) -> None:
    scratch = memoryview(mmap.mmap(-1, SCRATCH_BYTES))
    writer = PackWriter(LocalStore(tmp_path), _DOMAIN)
    chunks = [(_DOMAIN.chunk_id(digest(data)), data) for data in (n.to_bytes(2, "little") for n in range(2000))]
    for _ in range(8):
        writer.append(chunks, scratch)
    assert not writer.has_room(stored_size(2) * 384, 384)
    assert writer.has_room(stored_size(2) * 383, 383)
    writer.append(chunks[:383], scratch)
    assert not writer.has_room(stored_size(2), 1)
    assert writer.seal(scratch).size == 4096 * (1 + 73) + packs.index_size(16383)  # 227 a block


def test_same_chunk_is_never_encrypted_twice_alike(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first, second = (_write(store, [b"weights"]).chunks[0] for _ in range(2))
    assert first.chunk_id == second.chunk_id
    assert first.salt != second.salt
    assert first.blob_id != second.blob_id
    assert first.ciphertext_digest != second.ciphertext_digest


def test_pack_says_nothing_of_what_it_holds(written: _Written) -> None:
    for chunk in written.pack.chunks:
        assert chunk.chunk_id not in written.original
        assert chunk.salt not in written.original


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_is_found_and_no_wrong_byte_is_returned(written: _Written, data: st.DataObject) -> None:
    changed = data.draw(damaged(written.original))
    assume(changed != written.original)
    written.path.write_bytes(changed)
    for chunk, expected in zip(written.pack.chunks, written.plain, strict=True):
        try:
            assert _read(written, chunk) == expected
        except DataLoss as loss:
            assert loss.error_reason == "CHUNK_DAMAGED"  # noqa: PT017 both outcomes are right
    try:
        assert packs.read_index(written.store, written.pack.pack_id) == written.index
        assert packs.damaged(written.store, written.pack.pack_id)
    except DataLoss as loss:
        assert loss.error_reason == "PACK_DAMAGED"  # noqa: PT017


def test_damaged_blobs_are_named(written: _Written) -> None:
    third = written.index.entries[2]
    written.path.write_bytes(_with_bytes(written.original, third.offset + 7, b"?"))
    assert packs.damaged(written.store, written.pack.pack_id) == [third]
    with _lost("CHUNK_DAMAGED"):
        _read(written, written.pack.chunks[2])


def test_blobs_exchanged_within_a_pack_are_found(written: _Written) -> None:
    written.path.write_bytes(written.original)
    first, second = written.pack.chunks[:2]
    with _lost("CHUNK_DAMAGED"):
        _read(written, replace(first, offset=second.offset, stored_length=second.stored_length))


@pytest.mark.parametrize("field", ["chunk_id", "salt", "blob_id"])
def test_blob_opens_only_for_what_it_is(written: _Written, field: str) -> None:
    written.path.write_bytes(written.original)
    first, second = written.pack.chunks[:2]
    with _lost("CHUNK_DAMAGED"):
        _read(written, replace(first, **{field: getattr(second, field)}))


def test_blob_does_not_open_in_another_domain(written: _Written) -> None:
    written.path.write_bytes(written.original)
    chunk = written.pack.chunks[0]
    stored = packs.read_blob(written.store, written.pack.pack_id, chunk.offset, chunk.stored_length)
    with _lost("CHUNK_DAMAGED"):
        packs.decrypt(Domain(os.urandom(32), "other"), chunk.chunk_id, chunk.salt, chunk.blob_id, stored)


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 100),
        (8190, 100),
        (4097, 4096),
        (-4096, 100),
        (1 << 40, 100),
        (4096, 16),
        (4096, 0),
        (4096, -1),
        (4096, MAX_CHUNK + 17),
    ],
)
def test_place_outside_of_what_a_pack_can_hold_is_refused(written: _Written, offset: int, length: int) -> None:
    with _lost("CHUNK_DAMAGED"):
        packs.read_blob(written.store, written.pack.pack_id, offset, length)


def test_missing_pack_is_said_to_be_missing(written: _Written) -> None:
    for use in (
        lambda: packs.read_index(written.store, bytes(16)),
        lambda: packs.read_blob(written.store, bytes(16), 4096, 17),
    ):
        with _lost("PACK_MISSING"):
            use()


def test_pack_under_another_name_is_refused(written: _Written, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put(packs.pack_key(bytes(16)), written.original)
    with _lost("PACK_DAMAGED"):
        packs.read_index(store, bytes(16))


def test_impossible_index_is_refused_though_its_digest_is_right(written: _Written) -> None:
    first, second, *rest = written.index.entries
    assert second.offset % packs.BLOCK, "they share a block"
    forged = [
        (first, replace(second, offset=first.offset), *rest),  # overlap
        (first, replace(second, offset=second.offset + 1), *rest),  # not behind the first
        (replace(first, offset=first.offset + 1), second, *rest),
        (second, first, *rest),  # out of order
        (first, replace(second, blob_id=first.blob_id), *rest),  # one id twice
        (first, replace(second, stored_length=16), *rest),  # nothing but a tag
        (replace(first, stored_length=MAX_CHUNK + 17), second, *rest),
        (first, second, *rest[:-1]),  # a gap before the index
        (),
    ]
    blobs_end = rest[-1].offset + packs.aligned(rest[-1].stored_length)
    for entries in forged:
        size = blobs_end + packs.index_size(len(entries))
        index = packs.encode_index(PackIndex(written.pack.pack_id, size, entries))
        written.path.write_bytes(written.original[:blobs_end] + index)
        with _lost("PACK_DAMAGED"):
            packs.read_index(written.store, written.pack.pack_id)


def _with_bytes(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def test_secret_and_lengths_are_checked() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Domain(b"short", "key")
    with pytest.raises(ValueError, match="32 bytes"):
        _DOMAIN.chunk_key(bytes(32), b"")
    with pytest.raises(ValueError, match="16 bytes"):
        packs.decrypt(_DOMAIN, bytes(32), bytes(32), b"", bytes(17))
