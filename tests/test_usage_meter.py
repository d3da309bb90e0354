"""The meter: nothing is lost or counted twice, whatever becomes of reports."""

import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth import bootstrap
from services.auth.ledger import Ledger
from services.auth.ledger_pages import Query
from services.shared import metering
from services.shared.access import Method
from services.shared.call import Call
from services.shared.database import Database
from services.shared.errors import InvalidArgument, Unavailable
from services.shared.identity import Grant, Principal
from services.shared.metering import Meter, Report

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
UPLOAD = Method("/test/Upload", usage_class="upload")
CI = Principal("key:ci", "ci", "key:ci-1")


@dataclass
class Auth:
    """Takes reports as the ledger does: each id once. `fates` says what happens to the coming ones."""

    fates: list[str] = field(default_factory=list)
    reports: dict[str, Report] = field(default_factory=dict)
    largest: int = 0

    def record(self, report: Report) -> None:
        fate = self.fates.pop(0) if self.fates else "taken"
        self.largest = max(self.largest, len(report.uses), len(report.last_uses))
        if fate in ("taken", "answer lost"):
            self.reports.setdefault(report.id, report)
        if fate == "refused":
            raise InvalidArgument("no")
        if fate != "taken":
            raise Unavailable(fate)

    def totals(self, number: str = "requests") -> Counter[tuple[str, str, str]]:
        found: Counter[tuple[str, str, str]] = Counter()
        for report in self.reports.values():
            for use in report.uses:
                found[use.day, use.principal, use.usage_class] += getattr(use, number)
        return found

    def credentials(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for report in self.reports.values():
            found.update({last.credential_id: last.requests for last in report.last_uses})
        return found


@dataclass
class Clock:
    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


def made(method: Method = UPLOAD, who: Principal = CI) -> Call:
    """A call whose caller is known."""
    context: Any = None
    return Call(method, context, {}, None, principal=who, identified=True)


def call(meter: Meter, one: Call, received: int = 0, sent: int = 0) -> None:
    with meter.watch(one):
        one.bytes_received += received
        one.bytes_sent += sent


@pytest.mark.row("S1.9")
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("call"), st.sampled_from("abc"), st.sampled_from(["train", "predict"]), st.booleans()),
            st.tuples(st.just("report"), st.sampled_from(["taken", "answer lost", "lost"])),
            st.tuples(st.just("next day")),
        ),
        max_size=60,
    )
)
def test_every_call_is_counted_once_whatever_becomes_of_reports(steps: list[tuple[Any, ...]]) -> None:
    auth, clock = Auth(), Clock()
    meter = Meter(auth.record, clock)
    expected: Counter[tuple[str, str, str]] = Counter()
    failed: Counter[tuple[str, str, str]] = Counter()
    used: Counter[str] = Counter()
    for what, *arguments in steps:
        if what == "call":
            name, usage_class, fails = arguments
            one = made(Method("/test/M", usage_class=usage_class), Principal(f"key:{name}", name, f"key:{name}-1"))
            one.outcome = "NOT_FOUND" if fails else "OK"
            call(meter, one)
            line = (clock.now.date().isoformat(), f"key:{name}", usage_class)
            expected[line] += 1
            failed[line] += fails
            used[f"key:{name}-1"] += 1
        elif what == "report":
            auth.fates = [*arguments]
            meter.flush()
            auth.fates = []
        else:
            clock.now += timedelta(days=1)
    meter.close()
    assert auth.totals() == expected
    assert +auth.totals("errors") == +failed
    assert auth.credentials() == used


def test_bytes_of_a_stream_are_reported_while_it_runs() -> None:
    auth = Auth()
    meter = Meter(auth.record, Clock())
    one, line = made(), ("2026-11-21", "key:ci", "upload")
    with meter.watch(one):
        one.bytes_received = 700
        meter.flush()
        assert (auth.totals("bytes_received")[line], auth.totals()[line]) == (700, 0)
        one.bytes_received, one.bytes_sent = 1000, 5
    meter.flush()
    assert (auth.totals("bytes_received")[line], auth.totals("bytes_sent")[line], auth.totals()[line]) == (1000, 5, 1)


def test_a_stream_over_midnight_counts_on_the_day_it_ends_and_its_bytes_on_theirs() -> None:
    auth, clock = Auth(), Clock()
    meter = Meter(auth.record, clock)
    one = made()
    with meter.watch(one):
        one.bytes_received = 700
        meter.flush()
        clock.now += timedelta(days=1)
        one.bytes_received = 1000
    meter.flush()
    days = ("2026-11-21", "2026-11-22")
    assert [auth.totals("bytes_received")[day, "key:ci", "upload"] for day in days] == [700, 300]
    assert [auth.totals()[day, "key:ci", "upload"] for day in days] == [0, 1]


def test_a_call_that_raises_is_counted_with_its_traffic() -> None:
    auth = Auth()
    meter = Meter(auth.record, Clock())
    one = made()
    with suppress(ValueError), meter.watch(one):
        one.bytes_received, one.outcome = 9, "INTERNAL"
        raise ValueError
    meter.close()
    [use] = [use for report in auth.reports.values() for use in report.uses]
    assert (use.requests, use.errors, use.bytes_received) == (1, 1, 9)


@pytest.mark.parametrize(
    "one",
    [
        made(who=Principal("models", service=True)),
        Call(UPLOAD, None, {}, None),  # type: ignore[arg-type]
    ],
    ids=["a service", "a stranger"],
)
def test_services_and_strangers_have_no_line(one: Call) -> None:
    auth = Auth()
    meter = Meter(auth.record, Clock())
    call(meter, one, received=10)
    meter.close()
    assert auth.reports == {}


def test_seconds_of_jobs_are_counted_to_the_millisecond() -> None:
    auth = Auth()
    meter = Meter(auth.record, Clock())
    for _ in range(10):
        meter.count_job(CI, "train", 0.1, 0.0000105)
    meter.close()
    assert auth.totals("cost_micros") == {("2026-11-21", "key:ci", "train"): 100}
    assert auth.totals("job_milliseconds") == {("2026-11-21", "key:ci", "train"): 1000}


def test_memory_is_bounded_while_auth_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "_MOST_LINES", 100)
    auth = Auth(fates=["lost"] * 1000)
    meter = Meter(auth.record, Clock())
    for number in range(300):
        meter.count(Principal(f"oidc:{number}", credential_id=f"oidc:{number}"), "other", requests=1)
        meter.flush()
    for _ in range(5):
        meter.count(Principal("oidc:7", credential_id="oidc:7"), "other", requests=1)  # who is counted goes on
    auth.fates = []
    assert meter.flush()
    assert meter.flush()
    # The first report holds one line, and what came later a hundred.
    assert len(auth.totals()) == 101
    assert auth.totals()["2026-11-21", "oidc:7", "other"] == 6


def test_a_report_is_never_too_large_for_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "_REPORT_LINES", 7)
    auth = Auth()
    meter = Meter(auth.record, Clock())
    for number in range(50):
        meter.count(Principal(f"key:{number}", credential_id=f"key:{number}"), "other", requests=2)
    meter.close()
    assert auth.largest == 7
    assert sum(auth.totals().values()) == sum(auth.credentials().values()) == 100


def test_a_report_that_is_refused_for_good_does_not_hold_up_the_others() -> None:
    auth = Auth(fates=["refused"])
    meter = Meter(auth.record, Clock())
    call(meter, made())
    assert meter.flush()
    call(meter, made())
    meter.close()
    assert auth.totals() == {("2026-11-21", "key:ci", "upload"): 1}


def test_a_report_that_became_too_old_does_not_hold_up_the_others(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path}/strongroom.db", Clock()
    database = Database.open(url, service="auth", migrations=Path(bootstrap.__file__).parent / "migrations")
    ledger, away = Ledger(database, clock), [True]

    def record(report: Report) -> None:
        ledger.record(report)
        if away:
            raise Unavailable("the answer is lost")

    meter = Meter(record, clock)
    call(meter, made())
    assert not meter.flush()
    clock.now += timedelta(days=1, hours=1)
    call(meter, made())
    away.clear()
    meter.close()
    administrator = Principal("user:a", grants=(Grant("allow", ("*",), ("**",)),))
    assert [use.requests for use in ledger.export(administrator, Query())] == [1, 1]
    database.close()


def test_names_that_no_database_takes_are_made_plain() -> None:
    auth = Auth()
    meter = Meter(auth.record, Clock())
    call(meter, made(who=Principal("oidc:\x00\ud800", "\x00\udfff" + "n" * 400, "oidc:\x00")))
    meter.close()
    [report] = auth.reports.values()
    assert (report.uses[0].principal, report.last_uses[0].credential_id) == ("oidc:?", "oidc:")
    assert report.uses[0].name == "?" + "n" * 253


def test_an_orderly_stop_waits_for_auth_to_come_back_for_a_while() -> None:
    auth = Auth()
    meter = Meter(auth.record, Clock())
    call(meter, made())
    assert meter.flush()
    call(meter, made())
    auth.fates = ["lost"] * 3
    meter.close()
    assert auth.totals()["2026-11-21", "key:ci", "upload"] == 2


def test_counting_in_many_threads_loses_nothing() -> None:
    auth = Auth()
    meter = Meter(auth.record, lambda: datetime.now(UTC))
    meter.start()

    def calls() -> None:
        for _ in range(2000):
            call(meter, made(), received=3, sent=2)

    threads = [threading.Thread(target=calls) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        meter.flush()
    meter.close()
    totals = [sum(auth.totals(number).values()) for number in ("requests", "bytes_received", "bytes_sent")]
    assert totals == [16_000, 48_000, 32_000]
    assert auth.credentials() == {"key:ci-1": 16_000}
