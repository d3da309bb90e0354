"""A copy, or a repacking, under way while what it is about is deleted: nothing comes back, nothing is lost.

The other side acts exactly between two steps: in a store that is real but for a hook around the end of each write.
"""

import mmap
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

import services.models
from services.models import condemned, packs
from services.models import tables as t
from services.models.chunk_keys import Domain
from services.models.copy_journal import CopyJournal
from services.models.key_client import KeyClient
from services.models.managers import DEFAULT_MANAGER
from services.models.pack_writer import SCRATCH_BYTES, PackWriter, SealedPack
from services.models.removal import Remover
from services.models.repack import Repacker
from services.models.replication import Member, ReplicatedStore
from services.models.stores.local import LocalStore
from services.models.synchronize import Synchronizer
from services.shared.database import Database
from strongroom.chunking import digest

pytestmark = pytest.mark.row("S4.5")

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MIGRATIONS = Path(services.models.__file__).parent / "migrations"
DOMAIN = Domain(bytes(32), "domain")
MIB = 1 << 20


class Died(BaseException):
    """The process, as far as the code under test can tell."""


class Hooked:
    """A local store that calls `before` and `after` each commit of a write."""

    def __init__(self, root: Path) -> None:
        self._store = LocalStore(root)
        self.before: Callable[[], object] = lambda: None
        self.after: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create(self, key: str) -> Any:
        writer = self._store.create(key)
        commit = writer.commit

        def hooked() -> None:
            self.before()
            commit()
            self.after()

        writer.commit = hooked  # type: ignore[method-assign]
        return writer

    def put(self, key: str, data: bytes) -> None:
        with self.create(key) as writer:
            writer.append(data)
            writer.commit()


class Place:
    """A database, a primary and a replica; `target` is the replica's store."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.target, self.primary = Hooked(folder / "east"), Hooked(folder / "main")
        members = [Member("main", "local", self.primary), Member("east", "local", self.target)]
        self.journal = CopyJournal(database, lambda: NOW)
        self.stores = ReplicatedStore(members, self.journal)
        keys = KeyClient(grpc.insecure_channel("127.0.0.1:1"))  # nobody listens: nothing here asks for a key
        self.remover = Remover(database, self.stores, keys, lambda: NOW)

    def synchronize(self) -> int:
        return Synchronizer(self.stores.members[1], self.stores, self.database, self.journal, lambda: NOW).synchronize()

    def pack(self, lengths: list[int]) -> SealedPack:
        scratch = memoryview(mmap.mmap(-1, SCRATCH_BYTES))
        chunks = [random.Random(length).randbytes(length) for length in lengths]
        writer = PackWriter(self.stores, DOMAIN)
        writer.append([(DOMAIN.chunk_id(digest(chunk)), chunk) for chunk in chunks], scratch)
        return writer.seal(scratch)

    def condemn(self, name: str) -> None:
        with self.database.write() as connection:
            condemned.condemn(connection, [name], NOW)

    def remove(self, name: str) -> None:
        """All that a deletion does of an object that nobody refers to."""
        self.condemn(name)
        self.remover.remove([name])

    def pending(self) -> list[str]:
        with self.database.read() as connection:
            return condemned.pending(connection)


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Iterator[Place]:
    database = Database.open(database_url, service="models", migrations=MIGRATIONS)
    with database.write() as connection:
        row = {"id": DEFAULT_MANAGER, "kek_id": "kek", "domain_key_id": "domain", "created_at": NOW}
        connection.execute(sa.insert(t.managers).values(row))
    yield Place(database, tmp_path)
    database.close()


def test_what_is_condemned_before_the_copy_is_not_copied(place: Place) -> None:
    name = packs.pack_key(place.pack([100]).pack_id)
    place.condemn(name)
    place.target.before = lambda: pytest.fail("a copy is made of what is condemned")
    place.synchronize()
    assert not list(place.target.list())
    assert not place.journal.lags()


def test_what_is_removed_during_the_copy_does_not_come_back(place: Place) -> None:
    name = packs.pack_key(place.pack([100]).pack_id)
    place.target.before = lambda: place.remove(name)
    place.synchronize()
    for store in (place.primary, place.target):
        assert not list(store.list())
        assert not list(store.unfinished())
    assert not place.journal.lags()
    assert not place.pending()


def test_what_is_condemned_right_after_the_copy_goes_as_well(place: Place) -> None:
    name = packs.pack_key(place.pack([100]).pack_id)
    place.target.after = lambda: place.condemn(name)
    place.synchronize()
    assert not list(place.target.list())


def test_a_copy_that_a_crash_left_of_what_was_removed_is_removed_again(place: Place) -> None:
    """The process died between the copy and the second look; the name was removed, and that confirmed, before."""
    name = packs.pack_key(place.pack([100]).pack_id)

    def die() -> None:
        raise Died

    place.target.before, place.target.after = lambda: place.remove(name), die
    with pytest.raises(Died):
        place.synchronize()
    assert [found.key for found in place.target.list()] == [name]
    assert not place.pending(), "nobody knows of it"
    place.condemn(name)  # as a collection does that finds it in a store, and not in the index
    assert place.pending() == [name]
    place.remover.remove(place.pending())
    assert not list(place.target.list())
    assert not place.pending()


def chunk_rows(place: Place) -> list[sa.Row[Any]]:
    with place.database.read() as connection:
        return list(connection.execute(sa.select(t.chunks.c.id, t.packs.c.pack_id, t.chunks.c.offset).join(t.packs)))


@pytest.fixture
def sparse(place: Place) -> SealedPack:
    """A pack of 3 MiB of which the index knows one small chunk."""
    pack = place.pack([MIB, MIB + 1, MIB + 2, 100])
    chunk = pack.chunks[-1]
    with place.database.write() as connection:
        row = {"pack_id": pack.pack_id, "size": pack.size, "created_at": NOW}
        number = connection.execute(sa.insert(t.packs).values(row).returning(t.packs.c.id)).scalar_one()
        fields = (
            "chunk_id",
            "blob_id",
            "salt",
            "offset",
            "stored_length",
            "plain_length",
            "ciphertext_digest",
            "codec",
        )
        values = {field: getattr(chunk, field) for field in [*fields, "codec"]}
        connection.execute(sa.insert(t.chunks).values(manager_id=DEFAULT_MANAGER, pack=number, **values))
    return pack


def repack(place: Place) -> int:
    return Repacker(place.database, place.stores, lambda: NOW).repack(NOW)


def test_a_sparse_pack_is_repacked(place: Place, sparse: SealedPack) -> None:
    assert repack(place) == 1
    [(_, pack_id, offset)] = chunk_rows(place)
    assert pack_id != sparse.pack_id
    length = sparse.chunks[-1].stored_length
    moved = packs.read_blob(place.primary, pack_id, offset, length)
    assert moved == packs.read_blob(place.primary, sparse.pack_id, sparse.chunks[-1].offset, length)


def test_a_new_pack_that_is_condemned_takes_nothing(place: Place, sparse: SealedPack) -> None:
    """Another collection saw it before the index did."""
    before = chunk_rows(place)

    def collect() -> None:
        [new] = {found.key for found in place.primary.list("packs/")} - {packs.pack_key(sparse.pack_id)}
        place.remove(new)

    place.primary.after = collect
    assert repack(place) == 0
    assert chunk_rows(place) == before
    assert [found.key for found in place.primary.list("packs/")] == [packs.pack_key(sparse.pack_id)]


def test_nothing_moves_out_of_a_pack_that_is_condemned(place: Place, sparse: SealedPack) -> None:
    before = chunk_rows(place)
    place.primary.before = lambda: place.condemn(packs.pack_key(sparse.pack_id))
    assert repack(place) == 0
    assert chunk_rows(place) == before
