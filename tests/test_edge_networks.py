"""Whom an address stands for, wherever failures are counted by it."""

import pytest

from services.auth.admission import Attempt
from services.auth.edge_events import EdgeEvents
from services.auth.guesses import Guesses
from services.auth.networks import network
from services.shared.audit.event import Event
from strongroom import rates


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no address", "no address"),
        ("a" * 1000, "a" * 128),
    ],
)
def test_an_address_stands_for_a_network(address: str, expected: str) -> None:
    assert network(address) == expected


def test_a_guesser_with_a_mapped_address_does_not_use_up_that_of_all_others() -> None:
    guesses = Guesses(rates.Rate(1, 60), lambda: 1000.0)
    guesses.refused(Attempt("/m", api_key="bad", address="::ffff:192.0.2.1"))
    assert guesses.seconds_to_wait(Attempt("/m", api_key="bad", address="192.0.2.1")) > 0
    assert guesses.seconds_to_wait(Attempt("/m", api_key="bad", address="::ffff:192.0.2.2")) == 0


def test_failures_of_many_mapped_addresses_raise_no_alarm_together() -> None:
    noted: list[Event] = []
    events = EdgeEvents(noted.append, threshold=5, window=60, clock=lambda: 1000.0)
    for last in range(20):
        events.failed("unknown", f"::ffff:192.0.2.{last}")
    assert noted == []
    for _ in range(5):
        events.failed("unknown", "::ffff:192.0.2.99")
    assert [event.kind for event in noted] == ["auth.many_failures"]
