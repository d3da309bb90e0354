"""The chain of an audit log: whatever is done to one event is found. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.audit import chain
from services.shared.audit.event import CLOSED, LENGTHS, OPENED, Entry, Event

SERVICE, CHAIN = "secrets", "01JD0000000000000000000000"
SIGNATURE = "signed"
NOW = 10_000_000_000

Row = tuple[tuple[Any, ...], bytes]

events = st.builds(
    Event,
    kind=st.sampled_from(["call", "auth.invalid_key"]),
    principal=st.text(max_size=20),
    resource=st.text(max_size=20),
    reason=st.text(max_size=10),
    count=st.integers(1, 1000),
)
logs = st.lists(events, min_size=1, max_size=12)


def chained(recorded: Sequence[Event], *, first: Event | None = None, closed: bool = False) -> list[Row]:
    """The rows of a chain as the writer makes them."""
    marks = [replace(first or Event(OPENED), resource=SIGNATURE)], [Event(CLOSED, resource=SIGNATURE)] if closed else []
    rows: list[Row] = []
    previous = chain.GENESIS
    for sequence, event in enumerate([*marks[0], *recorded, *marks[1]], 1):
        columns = chain.values(Entry(f"{sequence:026}", 1000 + sequence, event, CHAIN, sequence))
        previous = chain.digest(SERVICE, previous, columns)
        rows.append((columns, previous))
    return rows


def head_of(rows: Sequence[Row], *, is_final: bool = False) -> chain.Head:
    return chain.Head(SERVICE, CHAIN, len(rows), rows[-1][1], NOW, is_final)


def verify(rows: Sequence[Row], *heads: chain.Head, unsigned_since: int = 0) -> chain.Report:
    return chain.verify(SERVICE, CHAIN, iter(rows), heads, lambda _mark, text: text == SIGNATURE, unsigned_since)


def changed(row: Row, column: int, value: Any) -> Row:
    columns = list(row[0])
    columns[column] = value
    return tuple(columns), row[1]


@given(logs, st.booleans())
def test_an_untouched_chain_is_valid(recorded: list[Event], closed: bool) -> None:
    rows = chained(recorded, closed=closed)
    report = verify(rows, head_of(rows, is_final=closed))
    assert not report.problems
    assert (report.events, report.heads, report.is_closed) == (len(rows), 1, closed)
    assert not verify(rows).problems, "without heads at hand the hashes alone speak"


@pytest.mark.row("S1.9")
@given(logs, st.data())
def test_any_change_of_any_column_is_found(recorded: list[Event], data: st.DataObject) -> None:
    rows = chained(recorded)
    place = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(0, len(chain.COLUMNS) - 1))
    old = rows[place][0][column]
    new = data.draw(
        (st.integers() if isinstance(old, int) else st.text(max_size=30)).filter(lambda value: value != old)
    )
    rows[place] = changed(rows[place], column, new)
    rows.sort(key=lambda row: row[0][-1])
    assert verify(rows).problems


@given(logs, st.data())
def test_a_changed_hash_is_found(recorded: list[Event], data: st.DataObject) -> None:
    rows = chained(recorded)
    place = data.draw(st.integers(0, len(rows) - 1))
    rows[place] = rows[place][0], data.draw(st.binary(max_size=40).filter(lambda value: value != rows[place][1]))
    assert verify(rows).problems


@given(logs, st.data())
def test_any_deletion_is_found(recorded: list[Event], data: st.DataObject) -> None:
    rows = chained(recorded)
    head = head_of(rows)
    first = data.draw(st.integers(0, len(rows) - 1))
    last = data.draw(st.integers(first + 1, len(rows)))
    assert verify(rows[:first] + rows[last:], head).problems


@given(logs, st.data())
def test_any_two_events_that_change_places_are_found(recorded: list[Event], data: st.DataObject) -> None:
    rows = chained(recorded)
    one, other = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=2, max_size=2, unique=True))
    sequence = len(chain.COLUMNS) - 1
    rows[one], rows[other] = changed(rows[other], sequence, one + 1), changed(rows[one], sequence, other + 1)
    assert verify(rows).problems


@given(logs, events, st.data())
def test_an_event_put_in_between_is_found(recorded: list[Event], forged: Event, data: st.DataObject) -> None:
    rows = chained(recorded)
    place = data.draw(st.integers(1, len(rows)))
    columns = chain.values(Entry("9" * 26, NOW, forged, CHAIN, place))
    rows.insert(place, (columns, chain.digest(SERVICE, rows[place - 1][1], columns)))
    assert verify(rows).problems


@given(logs, events)
def test_a_chain_hashed_anew_differs_from_its_signed_head(recorded: list[Event], forged: Event) -> None:
    rows = chained(recorded)
    again = chained([forged, *recorded[1:]])
    expected = again != rows
    assert bool(verify(again, head_of(rows)).problems) is expected
    assert not verify(again).problems, "which nobody can tell without the head"


def test_a_whole_chain_that_is_gone_is_told_by_its_head() -> None:
    report = verify([], head_of(chained([Event("call")])))
    assert report.problems == ["The whole chain is missing: signed heads tell of it."]


def test_nobody_adds_to_a_chain_that_was_closed_or_sealed() -> None:
    closed = chained([Event("call")], closed=True)
    columns = chain.values(Entry("9" * 26, NOW, Event("call"), CHAIN, len(closed) + 1))
    added = [*closed, (columns, chain.digest(SERVICE, closed[-1][1], columns))]
    assert "behind the end" in verify(added).problems[0]
    crashed = chained([Event("call")])
    assert "behind the end" in verify(chained([Event("call")] * 2), head_of(crashed, is_final=True)).problems[0]


def test_events_that_no_head_covers_for_long_are_a_problem() -> None:
    rows = chained([Event("call")] * 3)
    head = head_of(rows[:2])
    assert not verify(rows, head, unsigned_since=1000).problems
    [problem] = verify(rows, head, unsigned_since=NOW).problems
    assert "No head was signed over the events from 3 on" in problem


def test_a_chain_that_the_service_did_not_begin_is_a_forgery() -> None:
    assert "not signed by the service" in verify(chained([], first=Event(OPENED)) and _unsigned()).problems[0]
    assert "begins with" in verify(chained([Event("call")], first=Event("call"))).problems[0]


def _unsigned() -> list[Row]:
    columns = chain.values(Entry("1" * 26, 1, Event(OPENED, resource="forged"), CHAIN, 1))
    return [(columns, chain.digest(SERVICE, chain.GENESIS, columns))]


@pytest.mark.parametrize("value", [None, b"\xff", 1.5, "text"])
def test_what_is_no_number_at_all_is_found(value: Any) -> None:
    """SQLite keeps whatever is put into a column."""
    rows = chained([Event("call")])
    for column in ("time", "count", "sequence"):
        broken = [rows[0], changed(rows[1], chain.COLUMNS.index(column), value)]
        assert verify(broken).problems, column


def test_problems_are_told_one_by_one_and_not_without_end() -> None:
    rows = chained([Event("call")] * 300)
    resource = chain.COLUMNS.index("resource")
    one = [*rows[:5], changed(rows[5], resource, "another"), *rows[6:]]
    assert len(verify(one).problems) == 1
    everywhere = [rows[0], *(changed(row, resource, "another") for row in rows[1:])]
    assert len(verify(everywhere).problems) == 100


def test_the_encoding_is_written_down() -> None:
    """Whoever verifies a log with a program of their own relies on it: this never changes without another tag."""
    event = Event("call", principal="key:1", method="a.B/C", resource="secrets/\N{SNOWMAN}", code="OK", count=2)
    entry = Entry("01JD", 1_700_000_000_000_001, event, "01JC", 7)
    encoded = (
        b'["strongroom-audit-1","secrets","01JD",1700000000000001,"call","key:1","","","a.B/C","secrets/\\u2603",'
        b'"allowed","OK","","","",2,"01JC",7]'
    )
    expected = hashlib.sha256(bytes(range(32)) + encoded).digest()
    assert chain.digest("secrets", bytes(range(32)), chain.values(entry)) == expected


@given(st.text(), st.text(max_size=2000))
def test_texts_are_bounded_and_printable(principal: str, resource: str) -> None:
    event = Event("call", principal=principal, resource=resource).bounded()
    for name, length in LENGTHS.items():
        text = getattr(event, name)
        assert len(text) <= length
        assert text.isprintable()
    if principal.isprintable() and len(principal) <= LENGTHS["principal"]:
        assert event.principal == principal
