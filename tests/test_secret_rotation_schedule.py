"""When secrets rotate, which servers rotators may reach, and what random values look like."""

import random
from datetime import UTC, datetime

import pytest

from services.secrets.rotation.options import OptionsInvalid
from services.secrets.rotation.rotators.random_value import RandomOptions
from services.secrets.rotation.schedule import Schedule, ScheduleInvalid
from services.secrets.rotation.targets import TargetForbidden, Targets

pytestmark = pytest.mark.row("S4.3")


def after(expression: str, zone: str, moment: str, count: int = 1) -> list[str]:
    schedule, at = Schedule.parse(expression, zone), datetime.fromisoformat(moment).replace(tzinfo=UTC)
    found = []
    for _ in range(count):
        at = schedule.next_after(at)
        found.append(at.strftime("%m-%d %H:%M"))
    return found


def test_times_are_those_of_the_zone() -> None:
    assert after("0 0 * * 0", "UTC", "2026-01-01", 2) == ["01-04 00:00", "01-11 00:00"]
    assert after("0 3 * * *", "Europe/Vienna", "2026-01-01") == ["01-01 02:00"]
    assert after("0 3 * * *", "Europe/Vienna", "2026-07-01") == ["07-01 01:00"]
    assert after("30 4 1 1,7 *", "UTC", "2026-02-01", 2) == ["07-01 04:30", "01-01 04:30"]


def test_the_hour_that_is_skipped_and_the_hour_that_comes_twice() -> None:
    # 2026-03-29 02:00 CET is 03:00 CEST; 2026-10-25 03:00 CEST is 02:00 CET.
    assert after("30 2 * * *", "Europe/Vienna", "2026-03-28T12:00", 2) == ["03-29 01:00", "03-30 00:30"]
    assert after("30 2 * * *", "Europe/Vienna", "2026-10-24T12:00", 2) == ["10-25 00:30", "10-26 01:30"]


@pytest.mark.parametrize(
    ("expression", "zone"),
    [
        ("", "UTC"),
        ("* * * *", "UTC"),
        ("* * * * * *", "UTC"),
        ("60 * * * *", "UTC"),
        ("0 0 30 2 *", "UTC"),
        ("@daily", "UTC"),
        ("0 0 * * MOO", "UTC"),
        ("*/0 * * * *", "UTC"),
        ("0 0 * * *", "Atlantis/Poseidonis"),
        ("0 0 * * *", "../../etc/passwd"),
        ("0 0 * * *", "/etc/localtime"),
        ("0 0 * * *", ""),
    ],
)
def test_what_is_no_schedule(expression: str, zone: str) -> None:
    with pytest.raises(ScheduleInvalid):
        Schedule.parse(expression, zone)


def test_rotators_reach_what_the_operator_named_and_nothing_else() -> None:
    targets = Targets.parse("db.internal:5432, *.example.com:443,[::1]:*, 127.0.0.1:*")
    for host, port in [
        ("db.internal", 5432),
        ("DB.internal", 5432),
        ("a.example.com", 443),
        ("::1", 1),
        ("127.0.0.1", 9),
    ]:
        targets.check(host, port)
    for host, port in [
        ("db.internal", 22),
        ("example.com", 443),
        ("a.example.com.evil.org", 443),
        ("127.0.0.2", 9),
        ("localhost", 9),
        ("", 443),
    ]:
        with pytest.raises(TargetForbidden):
            targets.check(host, port)
    with pytest.raises(TargetForbidden):
        Targets.parse("").check("db.internal", 5432)


def test_random_values_follow_their_policy() -> None:
    options = RandomOptions.of({"length": 16.0, "characters": ["digits", "symbols"]})
    values = {options.value(random.SystemRandom()) for _ in range(200)}
    assert len(values) == 200
    for value in values:
        assert len(value) == 16
        assert any(sign.isdigit() for sign in value)
        assert any(not sign.isalnum() for sign in value)
        assert not any(sign.isalpha() for sign in value)


@pytest.mark.parametrize(
    "given",
    [
        {"length": 15},
        {"length": 1025},
        {"length": 20.5},
        {"characters": ["digits"]},
        {"characters": ["digits", "runes"]},
        {"fields": []},
        {"feilds": ["a"]},
    ],
)
def test_what_is_no_policy(given: dict[str, object]) -> None:
    with pytest.raises(OptionsInvalid):
        RandomOptions.of(given)
