"""Refusals in floods: counted, bounded, and who fails often is noticed."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from services.auth.edge_events import EdgeEvents
from services.shared.audit.denials import PERIOD, SORTS_OF_KNOWN, SORTS_OF_STRANGERS, Denials
from services.shared.audit.event import Event


class Clock:
    """Seconds that a test moves on."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def denials(clock: Clock) -> Denials:
    return Denials(clock)


REFUSED = Event("auth.invalid_key", method="a.B/C", outcome="denied", address="10.0.0.1")


def test_the_first_of_a_sort_is_told_at_once_and_the_rest_when_the_minute_ends(denials: Denials, clock: Clock) -> None:
    for number in range(1000):
        denials.note(replace(REFUSED, request_id=f"request-{number}"))
    assert denials.drain() == [replace(REFUSED, request_id="request-0")]
    assert denials.drain() == []
    clock.now += PERIOD
    assert denials.drain() == [replace(REFUSED, request_id="request-999", count=999)]
    clock.now += PERIOD
    assert denials.drain() == []


@pytest.mark.parametrize("field", ["kind", "principal", "method", "address"])
def test_what_differs_in_kind_principal_method_or_address_is_told_apart(denials: Denials, field: str) -> None:
    denials.note(REFUSED)
    denials.note(replace(REFUSED, **{field: "another"}))
    assert len(denials.drain()) == 2


def test_the_end_of_a_process_loses_no_count(denials: Denials) -> None:
    for _ in range(5):
        denials.note(REFUSED)
    assert sum(event.count for event in denials.drain(end=True)) == 5


@pytest.mark.row("S3.8")
def test_a_flood_of_strangers_fills_no_disk(denials: Denials, clock: Clock) -> None:
    """From however many addresses they come: some 40 rows a minute of each kind, and every one counted."""
    rows, minutes, sent = 0, 5, 20_000
    for minute in range(minutes):
        for number in range(sent):
            denials.note(replace(REFUSED, address=f"10.{minute}.{number // 256}.{number % 256}"))
        clock.now += PERIOD
        drained = denials.drain()
        assert sum(event.count for event in drained) == sent
        rows += len(drained)
        assert len(denials._tallies) == 0
    assert rows <= minutes * 2 * (SORTS_OF_STRANGERS + 1)


def test_strangers_do_not_hide_those_who_are_known(denials: Denials) -> None:
    for number in range(1000):
        denials.note(replace(REFUSED, address=f"address {number}"))
    denials.note(replace(REFUSED, principal="key:insider"))
    assert [event for event in denials.drain() if event.principal == "key:insider"]
    for number in range(2 * SORTS_OF_KNOWN):
        denials.note(replace(REFUSED, principal=f"key:{number}"))
    drained = denials.drain(end=True)
    assert len(drained) <= 2 * (SORTS_OF_KNOWN + 1) + SORTS_OF_STRANGERS + 1
    assert {event.principal for event in drained} >= {"*", "key:0"}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(1, 5)), max_size=200))
def test_no_refusal_is_lost(noted: list[tuple[str, int, int]]) -> None:
    denials = Denials(Clock())
    expected: Counter[str] = Counter()
    for kind, address, count in noted:
        denials.note(Event(kind, outcome="denied", address=str(address), count=count))
        expected[kind] += count
    found: Counter[str] = Counter()
    for event in denials.drain(end=True):
        found[event.kind] += event.count
    assert found == expected


@pytest.fixture
def noted() -> list[Event]:
    return []


@pytest.fixture
def events(noted: list[Event], clock: Clock) -> EdgeEvents:
    return EdgeEvents(noted.append, threshold=10, window=60.0, clock=clock)


def alerts(noted: list[Event]) -> list[Event]:
    return [event for event in noted if event.kind == "auth.many_failures"]


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.row("S3.8")
def test_many_failures_of_one_address_are_one_alarm_a_window(
    events: EdgeEvents, noted: list[Event], clock: Clock
) -> None:
    before = metric("strongroom_auth_alerts_total")
    with capture_logs() as lines:
        for _ in range(9):
            events.missing_key("/a.B/C", address="10.0.0.1")
        assert alerts(noted) == []
        events.invalid_key("/a.B/C", "revoked", key_prefix="abcdefgh", address="10.0.0.1")
    [alert] = alerts(noted)
    assert (alert.address, alert.outcome, alert.reason) == ("10.0.0.1", "denied", "MANY_FAILURES")
    assert [line["log_level"] for line in lines if line["event"] == "auth.many_failures"] == ["warning"]
    for _ in range(100):
        events.missing_key("/a.B/C", address="10.0.0.1")
    assert len(alerts(noted)) == 1
    clock.now += 61
    for _ in range(10):
        events.missing_key("/a.B/C", address="10.0.0.1")
    assert len(alerts(noted)) == 2
    assert metric("strongroom_auth_alerts_total") - before == 2


def test_failures_far_apart_and_of_many_addresses_are_nothing_unusual(
    events: EdgeEvents, noted: list[Event], clock: Clock
) -> None:
    for number in range(200):
        events.missing_key("/a.B/C", address="10.0.0.1")
        events.missing_key("/a.B/C", address=f"10.1.{number}.1")
        clock.now += 7
    assert alerts(noted) == []


def test_addresses_of_one_network_of_version_6_are_one_client(events: EdgeEvents, noted: list[Event]) -> None:
    for number in range(10):
        events.missing_key("/a.B/C", address=f"2001:db8::{number:x}")
    assert len(alerts(noted)) == 1


def test_memory_is_bounded_whoever_fails(events: EdgeEvents) -> None:
    for number in range(11_000):
        events.failed("missing", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(events._failures) <= 10_000


@pytest.mark.row("S3.8")
def test_every_refusal_is_a_counter_a_log_line_and_an_event(events: EdgeEvents, noted: list[Event]) -> None:
    before = {cause: metric("strongroom_auth_failures_total", cause=cause) for cause in ("missing", "revoked")}
    origins = metric("strongroom_refused_origins_total")
    with capture_logs() as lines:
        events.missing_key("/a.B/C", address="10.0.0.1", request_id="one")
        events.invalid_key("/a.B/C", "revoked", key_prefix="abcdefgh", address="10.0.0.1", request_id="two")
        events.origin_refused("https://evil.example", "10.0.0.1", "/api-keys?secret=1")
    assert [line["event"] for line in lines] == ["auth.missing_key", "auth.invalid_key", "auth.origin_refused"]
    for cause, count in before.items():
        assert metric("strongroom_auth_failures_total", cause=cause) == count + 1
    assert metric("strongroom_refused_origins_total") == origins + 1
    missing, invalid, origin = noted
    assert (missing.kind, missing.method, missing.code, missing.request_id) == (
        "auth.missing_key",
        "a.B/C",
        "UNAUTHENTICATED",
        "one",
    )
    assert (invalid.kind, invalid.key_prefix, invalid.reason) == ("auth.invalid_key", "abcdefgh", "CREDENTIAL_INVALID")
    assert origin.resource == "https://evil.example /api-keys"
    assert {event.outcome for event in noted} == {"denied"}


def test_causes_that_somebody_makes_up_are_one_series(events: EdgeEvents) -> None:
    before = metric("strongroom_auth_failures_total", cause="other")
    for number in range(100):
        events.failed(f"cause {number}", "")
    events.failed("a token of\nmany lines", "")
    assert metric("strongroom_auth_failures_total", cause="other") - before >= 37
