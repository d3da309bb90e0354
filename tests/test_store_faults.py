"""Stores in a cloud that fail: each fault ends in a clear error and a clean state, and the next attempt succeeds."""

import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from services.models.chunk_keys import Domain
from services.models.pack_writer import SCRATCH_BYTES, PackWriter
from services.models.packs import damaged
from services.models.stores.parts import PART_BYTES, Patience
from services.models.stores.store import ObjectExists, Store, StoreFull, StoreUnavailable
from services.shared.errors import DataLoss
from tests.faulty_line import FaultyLine, faulty_line
from tests.store_kinds import REMOTE, new_store

pytestmark = pytest.mark.row("S4.5")

_PATIENCE = Patience(connect=2.0, silence=2.0, attempts=2)
# The SDKs wait between attempts.
_SECONDS = 15.0
_ALWAYS = 1_000_000
_LARGE = bytes(range(256)) * (PART_BYTES // 256) + b"and more"


@dataclass(frozen=True)
class Place:
    """A store behind a line that may be made to fail."""

    kind: str
    store: Store
    line: FaultyLine


@pytest.fixture(params=REMOTE)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    server = request.getfixturevalue(f"{request.param}_server")
    with faulty_line(server.url) as line:
        yield Place(request.param, new_store(request.param, request, lambda _: line.url, patience=_PATIENCE), line)


def _commits(request: str) -> bool:
    """Whether a request makes an object of parts."""
    method, _, path = request.partition(" ")
    return (method == "POST" and ("uploadId=" in path or "/compose" in path)) or (
        method == "PUT" and "comp=blocklist" in path
    )


def _clean(store: Store) -> None:
    """What a crash or an outage leaves is listed, and gone after that is discarded."""
    for unfinished in list(store.unfinished()):
        assert store.discard_unfinished(unfinished.key)
    assert not list(store.unfinished())
    assert not list(store.list())


def test_short_outage_is_not_noticed(place: Place) -> None:
    def outage() -> None:
        place.line.plan("refuse", 1)

    outage()
    place.store.put("packs/ab/1", b"0123456789")
    outage()
    assert place.store.read("packs/ab/1", 2, 3) == b"234"
    outage()
    assert place.store.size("packs/ab/1") == 10
    outage()
    assert [each.key for each in place.store.list()] == ["packs/ab/1"]
    outage()
    assert place.store.delete("packs/ab/1")
    assert place.line.met == 5


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["refuse", "silence"])
def test_long_outage_is_told_in_bounded_time(place: Place, fault: str) -> None:
    place.store.put("packs/ab/1", b"old")
    place.line.plan(fault, _ALWAYS)
    for use in (
        lambda: place.store.put("packs/ab/2", b"new"),
        lambda: place.store.read("packs/ab/1"),
        lambda: list(place.store.list()),
    ):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            use()
        assert time.monotonic() - began < _SECONDS
    place.line.heal()
    place.store.put("packs/ab/2", b"new")
    assert place.store.read("packs/ab/1") == b"old"
    assert place.store.read("packs/ab/2") == b"new"


def test_outage_in_the_middle_of_a_write_leaves_no_object(place: Place) -> None:
    with place.store.create("packs/ab/1") as writer:
        writer.append(_LARGE)
        place.line.plan("refuse", _ALWAYS)
        with pytest.raises(StoreUnavailable):
            writer.commit()
    place.line.heal()
    _clean(place.store)
    place.store.put("packs/ab/1", _LARGE)
    assert place.store.read("packs/ab/1") == _LARGE


def test_full_store_says_so_and_takes_no_object(place: Place) -> None:
    place.line.plan("full", _ALWAYS, lambda request: not request.startswith(("GET", "HEAD", "DELETE")))
    for data in (b"small", _LARGE):
        with pytest.raises(StoreFull, match="no room"):
            place.store.put("packs/ab/1", data)
    place.line.heal()
    _clean(place.store)
    place.store.put("packs/ab/1", b"small")


@pytest.mark.parametrize("data", [b"0123456789", _LARGE], ids=["small", "large"])
def test_answer_cut_in_its_body_is_asked_for_again(place: Place, data: bytes) -> None:
    place.store.put("packs/ab/1", data)
    for span in ((0, None), (4, len(data) - 6)):
        place.line.plan("cut", 1, lambda request: request.startswith("GET"))
        begin, length = span
        assert place.store.read("packs/ab/1", *span) == data[begin:][:length]
    assert place.line.met == 2


def test_answers_that_are_always_cut_are_no_data(place: Place) -> None:
    place.store.put("packs/ab/1", b"0123456789")
    place.line.plan("cut", _ALWAYS, lambda request: request.startswith("GET"))
    with pytest.raises(StoreUnavailable):
        place.store.read("packs/ab/1", 0, 10)
    place.line.heal()
    assert place.store.read("packs/ab/1", 0, 10) == b"0123456789"


@pytest.mark.parametrize("data", [b"small", _LARGE], ids=["small", "large"])
def test_write_whose_answer_is_lost_has_succeeded(place: Place, data: bytes) -> None:
    # Sent again by the SDK, it meets its own object.
    when = _commits if len(data) > PART_BYTES else lambda request: not request.startswith(("GET", "HEAD"))
    place.line.plan("lose", 1, when)
    place.store.put("packs/ab/1", data)
    assert place.line.met == 1
    assert place.store.read("packs/ab/1") == data
    assert not list(place.store.unfinished())
    with pytest.raises(ObjectExists):
        place.store.put("packs/ab/1", data)


def test_range_that_the_server_overlooks_gives_no_wrong_data(place: Place) -> None:
    place.store.put("packs/ab/1", b"0123456789")
    # What asks for a range is signed for Azure.
    fault = "unranged" if place.kind == "azure" else "whole"
    place.line.plan(fault, _ALWAYS, lambda request: request.startswith("GET"))
    for span in ((2, 3), (0, 3)):
        with pytest.raises(StoreUnavailable):
            place.store.read("packs/ab/1", *span)


def test_wrong_bytes_are_never_taken_for_a_pack(place: Place) -> None:
    domain = Domain(bytes(32), "domain-key")
    scratch = memoryview(bytearray(SCRATCH_BYTES))
    writer = PackWriter(place.store, domain)
    writer.append([(bytes(32), b"weights" * 1000)], scratch)
    pack = writer.seal(scratch)
    assert damaged(place.store, pack.pack_id) == []
    place.line.plan("flip", _ALWAYS, lambda request: request.startswith("GET"))
    with pytest.raises((DataLoss, StoreUnavailable)):
        damaged(place.store, pack.pack_id)
    place.line.heal()
    assert damaged(place.store, pack.pack_id) == []


@pytest.mark.parametrize("kind", REMOTE)
def test_missing_bucket_is_no_missing_object(kind: str, request: pytest.FixtureRequest) -> None:
    """Else a typing error in the configuration would have all weights declared lost."""
    store = new_store(kind, request, bucket="nobodys", patience=_PATIENCE)
    for use in (store.read, store.size, store.delete):
        with pytest.raises(StoreUnavailable):
            use("packs/ab/1")
    with pytest.raises(StoreUnavailable):
        list(store.list())


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_wrong_credential_is_refused_and_not_shown(kind: str, request: pytest.FixtureRequest) -> None:
    secret = "d3Jvbmcgc2VjcmV0IG9mIGEgc3RvcmU="
    store = new_store(kind, request, secret=secret, patience=_PATIENCE)
    with pytest.raises(StoreUnavailable, match="credential") as caught:
        store.put("packs/ab/1", b"x")
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.metadata) + repr(store)
    assert secret not in shown
