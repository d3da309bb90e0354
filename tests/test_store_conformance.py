"""What a store promises, on local disk and on the real servers of S3, Google Cloud Storage and Azure Blob Storage."""

import threading
import time
from collections.abc import Iterator

import pytest

from services.models.stores import azure, gcs, s3
from services.models.stores.parts import PART_BYTES, Patience
from services.models.stores.store import (
    ObjectExists,
    ObjectNotFound,
    Store,
    StoredObject,
    StoreUnavailable,
    check,
)
from tests.store_kinds import KINDS, new_store

pytestmark = pytest.mark.row("S4.5")

_LARGE = bytes(range(256)) * (PART_BYTES // 256) + b"and more"


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Store:
    return new_store(request.param, request)


def _keys(found: Iterator[StoredObject]) -> list[str]:
    return sorted(each.key for each in found)


def test_object_reads_back_whole_and_in_ranges(store: Store) -> None:
    store.put("manifests/one", b"0123456789")
    assert store.size("manifests/one") == 10
    assert store.read("manifests/one") == b"0123456789"
    assert store.read("manifests/one", 3) == b"3456789"
    assert store.read("manifests/one", 3, 4) == b"3456"
    assert store.read("manifests/one", 8, 100) == b"89"
    assert store.read("manifests/one", 0, 0) == b""
    assert store.read("manifests/one", 10) == b""
    assert store.read("manifests/one", 100, 5) == b""


def test_empty_object_is_an_object(store: Store) -> None:
    store.put("manifests/empty", b"")
    assert store.size("manifests/empty") == 0
    assert store.read("manifests/empty") == store.read("manifests/empty", 0, 5) == b""
    assert _keys(store.list()) == ["manifests/empty"]
    assert not list(store.unfinished())
    with pytest.raises(ObjectExists):
        store.put("manifests/empty", b"now full")


@pytest.mark.parametrize("cuts", [[], [1], [PART_BYTES], [PART_BYTES - 1, PART_BYTES + 1]])
def test_pieces_of_any_length_are_joined(store: Store, cuts: list[int]) -> None:
    with store.create("packs/ab/1") as writer:
        for start, end in zip([0, *cuts], [*cuts, len(_LARGE)], strict=True):
            piece = bytearray(_LARGE[start:end])
            writer.append(memoryview(piece))
            piece[:] = bytes(len(piece))  # the buffer is the caller's again
        writer.commit()
    assert store.size("packs/ab/1") == len(_LARGE)
    assert store.read("packs/ab/1") == _LARGE
    assert store.read("packs/ab/1", PART_BYTES - 2, 6) == _LARGE[PART_BYTES - 2 : PART_BYTES + 4]
    assert not list(store.unfinished())


def test_object_of_many_parts_is_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "_MOST_COMPOSED", 2)
    parts = 5
    with store.create("packs/ab/1") as writer:
        for number in range(parts):
            writer.append(bytes([number]) * PART_BYTES)
        writer.commit()
    assert store.size("packs/ab/1") == parts * PART_BYTES
    for number in range(parts):
        found = store.read("packs/ab/1", (number + 1) * PART_BYTES - 1, 2)
        assert found == bytes([number, number + 1])[: parts - number]
    assert not list(store.unfinished())


def test_object_is_unseen_until_committed(store: Store) -> None:
    with store.create("packs/ab/1") as writer:
        writer.append(_LARGE)
        assert not list(store.list())
        (unfinished,) = store.unfinished()
        assert unfinished.size >= PART_BYTES
        assert abs(unfinished.modified - time.time()) < 60
        for use in (store.read, store.size):
            with pytest.raises(ObjectNotFound):
                use("packs/ab/1")
        assert not store.delete("packs/ab/1")
        writer.commit()
    assert store.size("packs/ab/1") == len(_LARGE)
    assert not list(store.unfinished())


@pytest.mark.parametrize("data", [b"small", _LARGE], ids=["small", "large"])
def test_what_is_not_committed_is_discarded(store: Store, data: bytes) -> None:
    with store.create("packs/ab/1") as writer:
        writer.append(data)
    assert not list(store.list())
    assert not list(store.unfinished())
    store.put("packs/ab/1", data)
    assert store.read("packs/ab/1") == data


@pytest.mark.parametrize("data", [b"second", _LARGE], ids=["small", "large"])
def test_object_never_changes(store: Store, data: bytes) -> None:
    store.put("manifests/a", b"first")
    with pytest.raises(ObjectExists):
        store.put("manifests/a", data)
    assert store.read("manifests/a") == b"first"
    assert not list(store.unfinished())


@pytest.mark.parametrize("data", [b"", _LARGE], ids=["small", "large"])
def test_one_of_many_writers_wins(request: pytest.FixtureRequest, store: Store, data: bytes) -> None:
    start, won, lost = threading.Barrier(4), [], []

    def compete(number: int) -> None:
        mine = data + bytes([number])
        with store.create("manifests/champion") as writer:
            writer.append(mine)
            start.wait()
            try:
                writer.commit()
            except ObjectExists:
                lost.append(number)
            else:
                won.append(mine)

    threads = [threading.Thread(target=compete, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("manifests/champion") in won
    assert len(won) + len(lost) == 4
    # SeaweedFS 4.48 looks for an object before it takes the lock under which it completes an upload in parts, so that
    # several may pass; Amazon documents that one does. Keys of packs are random: nobody competes for one.
    # fake-gcs-server 0.1.1 has no conditions on composing; Google documents them.
    if not any(each in request.node.name for each in ("s3-large", "gcs-large")):
        assert len(won) == 1
    assert not list(store.unfinished())


def test_closed_writer_refuses(store: Store) -> None:
    with store.create("packs/a") as writer:
        writer.commit()
        with pytest.raises(ValueError, match="closed"):
            writer.append(b"more")
        with pytest.raises(ValueError, match="closed"):
            writer.commit()
        writer.discard()
    assert store.size("packs/a") == 0


def test_listing_goes_below_a_folder(store: Store) -> None:
    for key in ("packs/ab/1", "packs/ab/2", "packs/abc/1", "packs/cd/3", "manifests/4"):
        store.put(key, key.encode())
    assert _keys(store.list()) == ["manifests/4", "packs/ab/1", "packs/ab/2", "packs/abc/1", "packs/cd/3"]
    assert _keys(store.list("packs/")) == ["packs/ab/1", "packs/ab/2", "packs/abc/1", "packs/cd/3"]
    assert _keys(store.list("packs/ab/")) == ["packs/ab/1", "packs/ab/2"]
    assert _keys(store.list("nothing/")) == []
    (found,) = store.list("manifests/")
    assert found.size == 11
    assert abs(found.modified - time.time()) < 60
    with pytest.raises(ValueError, match="folder"):
        list(store.list("pack"))


def test_listing_has_as_many_pages_as_it_takes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (s3, gcs, azure):
        monkeypatch.setattr(module, "PAGE", 3)
    for number in range(10):
        store.put(f"packs/{number}", b"")
    assert _keys(store.list("packs/")) == [f"packs/{number}" for number in range(10)]


def test_deleting_says_whether_there_was_one(store: Store) -> None:
    store.put("packs/ab/1", b"x")
    assert store.delete("packs/ab/1")
    assert not store.delete("packs/ab/1")
    assert not store.delete("packs/zz/1")
    for absent in (
        lambda: store.read("packs/ab/1"),
        lambda: store.read("packs/ab/1", 0, 0),
        lambda: store.read("packs/ab/1", 5, 5),
        lambda: store.size("packs/ab/1"),
        lambda: store.size("no/folder"),
    ):
        with pytest.raises(ObjectNotFound):
            absent()
    assert not list(store.list())
    store.put("packs/ab/1", b"again")
    assert store.read("packs/ab/1") == b"again"


@pytest.mark.parametrize("kind", KINDS)
def test_leftovers_of_a_crash_can_be_found_and_removed(kind: str, request: pytest.FixtureRequest) -> None:
    store = new_store(kind, request, patience=Patience(silence=3))
    writer = store.create("packs/ab/1")
    writer.append(_LARGE)
    store.put("packs/ab/2", b"of another writer")
    (leftover,) = store.unfinished()
    assert store.discard_unfinished(leftover.key)
    assert not store.discard_unfinished(leftover.key)
    assert not list(store.unfinished())
    # Who was no crash, but slow, hears it and leaves nothing.
    with pytest.raises(StoreUnavailable):
        writer.commit()
    assert _keys(store.list()) == ["packs/ab/2"]
    assert not list(store.unfinished())


def test_discarding_leaves_objects_alone(store: Store) -> None:
    store.put("packs/ab/1", _LARGE)
    with store.create("packs/ab/2") as writer:
        writer.append(_LARGE)
        (unfinished,) = store.unfinished()
        writer.commit()
    assert not store.discard_unfinished(unfinished.key)
    assert _keys(store.list()) == ["packs/ab/1", "packs/ab/2"]


_IMPOSSIBLE = [
    "",
    "/",
    "/etc/passwd",
    "../up",
    "packs/../../up",
    "packs/./a",
    "packs//a",
    "a/",
    ".tmp/a",
    "a\0b",
    "a\n",
]
_IMPOSSIBLE += ["ä", "-a", "a b", "a\\b", "x" * 129, "..", "a?x=1", "a#b", "a%2e"]


def test_impossible_key_is_refused(store: Store) -> None:
    uses = [store.create, store.read, store.size, store.delete, store.discard_unfinished]
    for key in _IMPOSSIBLE:
        for use in (*uses, lambda key: store.put(key, b"")):
            with pytest.raises(ValueError):  # noqa: PT011 the message has no part of the key
                use(key)


def test_threads_share_a_store(store: Store) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                key, data = f"packs/{number}/{turn}", bytes([number, turn]) * 1000
                store.put(key, data)
                assert store.read(key, 10, 10) == data[10:20]
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(list(store.list("packs/"))) == 40


def test_store_that_lets_nothing_change_passes_the_check(store: Store) -> None:
    check(store)
    check(store)
    assert _keys(store.list()) == ["checks/once"]
