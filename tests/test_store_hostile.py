"""Stores whose operator is an enemy: what they send is bounded, in time and bytes, and what is others' stays theirs."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.models.stores import gcs
from services.models.stores.local import LocalStore
from services.models.stores.parts import PART_BYTES, Patience, entries
from services.models.stores.store import StoreUnavailable
from tests.faulty_line import faulty_line
from tests.store_kinds import REMOTE, new_store
from tests.test_store_faults import Place

pytestmark = pytest.mark.row("S4.5")

_ALWAYS = 1_000_000
_MIB = 1 << 20
_DATA = bytes(range(256)) * 1024


@pytest.fixture(params=REMOTE)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    server = request.getfixturevalue(f"{request.param}_server")
    with faulty_line(server.url) as line:
        patience = Patience(connect=2.0, silence=1.0, attempts=1)
        yield Place(request.param, new_store(request.param, request, lambda _: line.url, patience=patience), line)


def _get(request: str) -> bool:
    return request.startswith("GET")


@pytest.mark.parametrize("fault", ["drip", "drip head"])
def test_an_answer_that_drips_ends_in_an_error(place: Place, fault: str) -> None:
    """Never silent for long, and never at an end: it would have kept the reader for hours."""
    place.store.put("packs/ab/1", _DATA)
    place.line.plan(fault, _ALWAYS, _get)
    began = time.monotonic()
    for read in (lambda: place.store.read("packs/ab/1", 0, len(_DATA)), lambda: list(place.store.list("packs/"))):
        with pytest.raises(StoreUnavailable):
            read()
    assert time.monotonic() - began < 15
    place.line.heal()
    assert place.store.read("packs/ab/1", 0, len(_DATA)) == _DATA


def test_an_answer_without_end_takes_no_memory(place: Place) -> None:
    place.store.put("packs/ab/1", _DATA)
    place.line.plan("flood", _ALWAYS, _get)
    for read in (lambda: place.store.read("packs/ab/1", 0, 1000), lambda: list(place.store.list("packs/"))):
        with pytest.raises(StoreUnavailable):
            read()
    # What is on its way in the buffers of the system comes on top, for each time the SDK tries again.
    assert place.line.sent < 400 * _MIB


def _next_page(kind: str) -> Callable[[bytes, int], bytes]:
    """The same page, of which there is always another."""

    def rewritten(body: bytes, number: int) -> bytes:
        token = f"page{number}".encode()
        if kind == "gcs":
            return re.sub(rb"\{", b'{"nextPageToken": "' + token + b'", ', body, count=1)
        if kind == "azure":
            body = re.sub(rb"<NextMarker\s*/>|<NextMarker></NextMarker>", b"", body)
            return body.replace(
                b"</EnumerationResults>", b"<NextMarker>" + token + b"</NextMarker></EnumerationResults>"
            )
        body = re.sub(rb"<IsTruncated>false", b"<IsTruncated>true", body)
        next_token = b"<NextContinuationToken>" + token + b"</NextContinuationToken>"
        return body.replace(b"</ListBucketResult>", next_token + b"</ListBucketResult>")

    return rewritten


def _is_list(request: str) -> bool:
    path = request.partition("?")[0]
    return _get(request) and ("list" in request or path.endswith(("/o", "/models")))


def test_a_list_without_end_is_no_list(place: Place) -> None:
    place.store.put("packs/ab/1", b"x")
    assert [found.key for found in place.store.list("packs/")] == ["packs/ab/1"]
    place.line.rewriting = _next_page(place.kind)
    place.line.plan("rewrite", _ALWAYS, _is_list)
    with pytest.raises(StoreUnavailable, match="does not end"):
        list(place.store.list("packs/"))
    assert place.line.met == 2


@pytest.mark.parametrize("pattern", [rb"<Size>\d+</Size>", rb"<Content-Length>\d+</Content-Length>", rb'"size":"\d+",'])
@pytest.mark.parametrize("instead", [b"", b"<Size>many</Size>", b'"size":"many",'])
def test_a_list_of_what_is_no_object_is_no_list(place: Place, pattern: bytes, instead: bytes) -> None:
    place.store.put("packs/ab/1", b"x")
    changed = 0

    def rewrite(body: bytes, _number: int) -> bytes:
        nonlocal changed
        body, changed = re.subn(pattern, instead, body)
        return body

    place.line.rewriting = rewrite
    place.line.plan("rewrite", _ALWAYS, _is_list)
    try:
        found = list(place.store.list("packs/"))
    except StoreUnavailable:
        return
    assert not changed or found[0].size == 0, "a size that is missing may be none"


def test_pages_that_are_empty_for_ever_are_no_list() -> None:
    def pages() -> Iterator[list[str]]:
        while True:
            yield []

    with pytest.raises(StoreUnavailable, match="does not end"):
        list(entries(pages(), str))
    assert list(entries([["a"], [], ["b", "c"]], str)) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", REMOTE)
def test_unfinished_writes_of_others_in_the_bucket_are_left_alone(kind: str, request: pytest.FixtureRequest) -> None:
    """The store has the bucket without a prefix, as somebody else has: a backup that takes hours, for instance."""
    ours, others = new_store(kind, request, prefix=""), new_store(kind, request)
    with others.create("packs/ab/1") as writer, ours.create("packs/ab/hostile-own") as own:
        for each in (writer, own):
            each.append(bytes(PART_BYTES))
        assert len(list(others.unfinished())) == 1
        found = [unfinished.key for unfinished in ours.unfinished()]
        assert found
        assert not any("team" in key for key in found)
        if kind != "gcs":  # whose parts do not say of what they are
            assert any(key.startswith("packs/ab/hostile-own") for key in found)
        writer.commit()
    assert others.size("packs/ab/1") == PART_BYTES


def test_parts_of_others_are_left_alone_at_google(request: pytest.FixtureRequest) -> None:
    store = new_store("gcs", request)
    assert isinstance(store, gcs.GcsStore)
    for name in ("holiday.jpg", "deep/er", f"{'0' * 32}.000000.bak"):
        store._part(name).upload_from_string(b"x")
    assert not list(store.unfinished())


def test_temporary_files_of_others_are_left_alone_on_disk(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / ".tmp" / "notes.txt").write_text("x")
    (tmp_path / ".tmp" / "folder").mkdir()
    (tmp_path / ".tmp" / "folder" / ("0" * 32)).write_text("x")
    assert not list(store.unfinished())
