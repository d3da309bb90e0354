"""The ledger and the counters of quotas in a real database, of both kinds."""

import csv
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from services.auth import bootstrap, ledger_files
from services.auth.key_record import NewApiKey, new_row
from services.auth.ledger import Ledger, ReportInvalid, ReportTooOld
from services.auth.ledger_pages import DayInvalid, PageTokenInvalid, Query
from services.auth.quota_counters import QuotaCounters
from services.auth.rights import resolve
from services.auth.tables import api_key_versions, api_keys
from services.auth.usage_tables import quota_counters, use_lines, use_reports
from services.shared.database import Database
from services.shared.errors import PermissionDenied
from services.shared.identity import Grant, Principal, Quota
from services.shared.metering import LastUse, Meter, Report, Use
from services.shared.quotas import Grant as QuotaGrant

MIGRATIONS = Path(bootstrap.__file__).parent / "migrations"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
READER = Principal("user:reader", grants=(Grant("allow", ("usage.read",), ("**",)),))
CI = Principal("key:ci", "ci", "key:ci-1")


def now() -> datetime:
    return NOON


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path}/strongroom.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_server").create_database()
    opened = Database.open(url, service="auth", migrations=MIGRATIONS)
    yield opened
    opened.close()


def report(*uses: Use, last_uses: tuple[LastUse, ...] = (), at: datetime = NOON) -> Report:
    return Report(str(ULID.from_datetime(at)), uses, last_uses)


def use(principal: str = "key:ci", usage_class: str = "upload", **fields: Any) -> Use:
    return Use(principal, **({"name": "ci", "day": "2026-11-21", "usage_class": usage_class, "requests": 1} | fields))


def lines(database: Database, caller: Principal = READER, **query: str) -> list[Use]:
    return Ledger(database, now).page(caller, Query(**query), 1000, "")[0]


def stored_key(database: Database, key_id: str = "K1", owner: str = "user:ann") -> str:
    """A key with one version, `<id>-1`. Returns its principal."""
    wish = NewApiKey("stored", resolve("read_only"))
    row = new_row(wish, (), owner=owner, created_by=owner, created_at=NOON) | {"id": key_id}
    version = {"id": f"{key_id}-1", "key_id": key_id, "number": 1, "prefix": key_id[:8], "usage_count": 0}
    with database.write() as connection:
        connection.execute(sa.insert(api_keys).values(row))
        connection.execute(
            sa.insert(api_key_versions).values(version | {"key_hash": key_id.encode(), "created_at": NOON})
        )
    return f"key:{key_id}"


@pytest.mark.row("S1.9")
def test_a_line_is_the_sum_of_its_reports(database: Database) -> None:
    ledger = Ledger(database, now)
    first = use(requests=3, errors=1, bytes_received=2**40, job_milliseconds=1500, cost_micros=42_500_000)
    ledger.record(report(first))
    ledger.record(report(use(name="renamed", bytes_sent=7, cost_micros=1), use(usage_class="other")))
    assert lines(database) == [
        use(usage_class="other"),
        replace(first, name="renamed", requests=4, bytes_sent=7, cost_micros=42_500_001),
    ]


@pytest.mark.row("S1.9")
def test_a_repeated_report_counts_once(database: Database) -> None:
    principal = stored_key(database)
    last = LastUse("key:K1-1", NOON, 2)
    once = report(use(principal, requests=2), last_uses=(last,))
    for _ in range(3):
        Ledger(database, now).record(once)
    assert [line.requests for line in lines(database)] == [2]
    assert used(database) == {"K1": (2, NOON), "K1-1": (2, NOON)}


def test_a_report_that_comes_twice_at_the_same_time_counts_once(database: Database) -> None:
    once = report(use(requests=5))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(Ledger(database, now).record, [once] * 24))
    assert [line.requests for line in lines(database)] == [5]


def test_a_report_too_old_to_know_whether_it_was_counted_is_refused(database: Database) -> None:
    with pytest.raises(ReportTooOld):
        Ledger(database, now).record(report(use(), at=NOON - timedelta(days=1, seconds=1)))
    assert lines(database) == []


def test_ids_are_remembered_as_long_as_reports_are_accepted(database: Database) -> None:
    sent = report(use())
    Ledger(database, now).record(sent)
    almost = Ledger(database, lambda: NOON + timedelta(days=1))
    almost.clean()
    almost.record(sent)
    assert [line.requests for line in lines(database)] == [1]
    Ledger(database, lambda: NOON + timedelta(days=3)).clean()
    with database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(use_reports)) == 0


def used(database: Database) -> dict[str, tuple[int, datetime | None]]:
    """`usage_count` and `last_used_at` of keys and versions."""
    with database.read() as connection:
        return {
            row.id: (row.usage_count, row.last_used_at)
            for table in (api_keys, api_key_versions)
            for row in connection.execute(sa.select(table.c.id, table.c.usage_count, table.c.last_used_at))
        }


@pytest.mark.row("S2.5")
def test_keys_show_how_often_and_when_they_were_used(database: Database) -> None:
    principal, idle = stored_key(database), stored_key(database, "K2")
    later = NOON + timedelta(minutes=5)
    ledger = Ledger(database, now)
    ledger.record(report(use(principal), last_uses=(LastUse("key:K1-1", later, 1),)))
    # Another service tells of earlier use: the later moment stays. A version that is gone does not matter.
    other = LastUse("key:gone", NOON, 1), LastUse("key:K1-1", NOON, 1), LastUse("session:1", NOON, 9)
    ledger.record(report(use(principal, requests=2), use("user:ann"), last_uses=other))
    assert used(database) == {"K1": (3, later), "K1-1": (2, later), "K2": (0, None), "K2-1": (0, None)}
    assert idle == "key:K2"


def test_replicas_that_report_at_the_same_time_lose_nothing(database: Database) -> None:
    keys = [stored_key(database, f"K{number}") for number in range(5)]
    meters = [Meter(Ledger(database, now).record, now) for _ in range(4)]

    def calls(meter: Meter) -> None:
        for number in range(60):
            key = keys[number % 5]
            meter.count(Principal(key, "n", f"{key}-1"), "predict", requests=1, errors=number % 2)
            if number % 7 == 0:
                meter.flush()
        meter.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(calls, meters))
    assert [(line.requests, line.errors) for line in lines(database)] == [(48, 24)] * 5
    assert {count for count, _ in used(database).values()} == {48}


def test_whoever_revokes_keys_in_another_order_never_fails_for_a_report(database: Database) -> None:
    first, second = stored_key(database, "K1"), stored_key(database, "K2")
    meter = Meter(Ledger(database, now).record, now)
    for key in (first, second):
        meter.count(Principal(key, "n", f"{key}-1"), "other", requests=1)
    holds, revoke = threading.Event(), sa.update(api_keys).values(revoked_at=NOON)

    def revoke_both() -> None:
        with database.write() as connection:
            connection.execute(revoke.where(api_keys.c.id == "K2"))
            holds.set()
            threading.Event().wait(0.3)  # the report holds K1 by now, on PostgreSQL, and waits for K2
            connection.execute(revoke.where(api_keys.c.id == "K1"))

    with ThreadPoolExecutor(1) as threads:
        revoking = threads.submit(revoke_both)
        assert holds.wait(5)
        meter.close()
        revoking.result()
    assert [line.requests for line in lines(database)] == [1, 1]
    assert used(database)["K1"][0] == used(database)["K2"][0] == 1


def test_what_cannot_be_written_is_written_later(database: Database) -> None:
    meter = Meter(Ledger(database, now).record, now)
    meter.count(CI, "other", requests=1)
    _rename(database, "use_lines", "hidden")
    assert not meter.flush()
    meter.count(CI, "other", requests=1)
    _rename(database, "hidden", "use_lines")
    assert meter.flush()
    assert [line.requests for line in lines(database)] == [2]


def _rename(database: Database, old: str, new: str) -> None:
    with database.write() as connection:
        connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))


def test_a_caller_sees_its_own_use_and_that_of_its_keys(database: Database) -> None:
    key = stored_key(database, owner="user:ann")
    others = stored_key(database, "K2", owner="user:bob")
    Ledger(database, now).record(report(use(key), use(others), use("user:ann"), use("user:bob")))
    ann = Principal("user:ann")
    assert [line.principal for line in lines(database, ann)] == [key, "user:ann"]
    assert [line.principal for line in lines(database, ann, principal="self")] == ["user:ann"]
    assert [line.principal for line in lines(database, ann, principal=key)] == [key]
    assert [line.principal for line in lines(database, Principal(key))] == [key]
    for hidden in (others, "user:bob", "key:unheard-of", "key:%"):
        with pytest.raises(PermissionDenied) as denied:
            lines(database, ann, principal=hidden)
        assert denied.value.metadata == {"permission": "usage.read", "resource": "usage"}
    assert len(lines(database)) == 4
    assert [line.principal for line in lines(database, principal=others)] == [others]
    assert lines(database, principal="self") == []


def test_days_are_bounds_both_included(database: Database) -> None:
    days = ["2026-10-21", "2026-10-22", "2026-11-20", "2026-11-21"]
    Ledger(database, now).record(report(*(use(day=day) for day in days)))
    assert [line.day for line in lines(database)] == ["2026-11-21", "2026-11-20", "2026-10-22"]
    assert [line.day for line in lines(database, from_day="2026-10-21", to_day="2026-10-22")] == days[1::-1]
    for wrong in ({"from_day": "2026-02-30"}, {"to_day": "2026-13-01"}, {"from_day": "2026-11-22"}):
        with pytest.raises(DayInvalid):
            lines(database, **wrong)


def test_pages_hold_every_line_once_in_order(database: Database) -> None:
    uses = [
        use(f"key:{letter}", usage_class, day=day)
        for day in ("2026-11-20", "2026-11-21")
        for letter in "aBcä_"
        for usage_class in ("other", "train")
    ]
    ledger = Ledger(database, now)
    ledger.record(report(*uses))
    everything, _ = ledger.page(READER, Query(), 1000, "")
    assert sorted(everything, key=str) == sorted(uses, key=str)
    found, token = [], ""
    while True:
        page, token = ledger.page(READER, Query(), 3, token)
        found += page
        if not token:
            break
        assert len(page) == 3
    assert found == everything
    assert list(ledger.export(READER, Query())) == everything


@pytest.mark.parametrize(
    "token", ["x", "é", "W10=", "WzEsMiwzXQ==", "eyJhIjoxfQ==", "WyJcdWQ4MDAiLCJhIiwiYiJd", "WyJcdTAwMDAiLCJhIiwiYiJd"]
)
def test_a_token_that_is_none_is_refused(database: Database, token: str) -> None:
    with pytest.raises(PageTokenInvalid):
        Ledger(database, now).page(READER, Query(), 10, token)


def test_a_token_names_any_principal(database: Database) -> None:
    ledger = Ledger(database, now)
    strange = [use(f"oidc:{text}") for text in ("\u200b", "\n", "🔑", "'", "%")]
    ledger.record(report(*strange))
    found, token = ledger.page(READER, Query(), 1, "")
    while token:
        page, token = ledger.page(READER, Query(), 1, token)
        found += page
    assert sorted(found, key=str) == sorted(strange, key=str)


def test_a_report_that_does_not_fit_is_refused_for_good(tmp_path: Path, postgresql_server: Any) -> None:
    url = postgresql_server.create_database()
    database = Database.open(url, service="auth", migrations=MIGRATIONS)
    with pytest.raises(ReportInvalid):
        Ledger(database, now).record(report(use("k" * 321), use()))
    assert lines(database) == []
    database.close()


def test_an_export_of_many_lines_is_whole(database: Database) -> None:
    uses = [use(f"oidc:{number:05}") for number in range(2500)]
    ledger = Ledger(database, now)
    ledger.record(report(*uses))
    assert list(ledger.export(READER, Query())) == uses
    with pytest.raises(PermissionDenied):  # before the first piece goes out
        ledger.export(CI, Query(principal="oidc:00001"))


def test_counters_never_give_more_than_the_quota(database: Database) -> None:
    quota = Quota("train", 100, "hour")
    counters = [QuotaCounters(database, now) for _ in range(3)]

    def take(number: int) -> int:
        return counters[number % 3].reserve("key:ci", quota, 3).granted

    with ThreadPoolExecutor(12) as threads:
        granted = list(threads.map(take, range(60)))
    assert sum(granted) == 100
    last = counters[0].reserve("key:ci", quota, 1)
    assert (last.granted, last.remaining, last.resets_at) == (0, 0, NOON + timedelta(hours=1))


def test_a_lowered_quota_gives_nothing_beyond_it(database: Database) -> None:
    counters = QuotaCounters(database, now)
    assert counters.reserve("key:ci", Quota("train", 100, "day"), 60).granted == 60
    lowered = counters.reserve("key:ci", Quota("train", 50, "day"), 1)
    assert (lowered.granted, lowered.remaining) == (0, 0)
    assert counters.reserve("key:ci", Quota("train", 70, "day"), 60).granted == 10


def test_what_a_key_uses_is_taken_from_its_makers_quotas_too(database: Database) -> None:
    """`user:ann` made K1, with ten a day; K1 made K2, with four an hour, and K3; K2 made K4."""
    ten, four = Quota("train", 10, "day"), Quota("train", 4, "hour")
    made_by = {"K1": "user:ann", "K2": "key:K1", "K3": "key:K1", "K4": "key:K2"}
    for key_id, maker in made_by.items():
        stored_key(database, key_id)
        quota = ten if key_id in ("K1", "K3") else four
        with database.write() as connection:
            row = {"created_by": maker, "quotas": [["other", 1, "day"], ["train", quota.requests, quota.per]]}
            connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(row))
    at = NOON
    counters = QuotaCounters(database, lambda: at)
    assert counters.reserve("key:K4", four, 3) == QuotaGrant(3, 1, NOON + timedelta(hours=1))
    assert counters.reserve("key:K2", four, 3) == QuotaGrant(1, 0, NOON + timedelta(hours=1))
    assert counters.reserve("key:K3", ten, 5) == QuotaGrant(5, 1, NOON + timedelta(hours=12))
    at = NOON + timedelta(hours=1)
    assert counters.reserve("key:K4", four, 3) == QuotaGrant(1, 0, NOON + timedelta(hours=2))
    # What is left of the hour is of no use before the day of K1 begins anew.
    for name, quota in (("key:K4", four), ("key:K2", four), ("key:K1", ten), ("key:K3", ten)):
        assert counters.reserve(name, quota, 1) == QuotaGrant(0, 0, NOON + timedelta(hours=12))


def test_keys_of_one_maker_together_never_get_more_than_it_has(database: Database) -> None:
    quota = Quota("train", 30, "day")
    for number in range(5):
        stored_key(database, f"K{number}")
        row = {"created_by": f"key:K{(number - 1) // 2}" if number else "user:ann", "quotas": [["train", 30, "day"]]}
        with database.write() as connection:
            connection.execute(sa.update(api_keys).where(api_keys.c.id == f"K{number}").values(row))
    counters = [QuotaCounters(database, now) for _ in range(2)]
    with ThreadPoolExecutor(10) as threads:
        granted = threads.map(lambda n: counters[n % 2].reserve(f"key:K{n % 5}", quota, 2).granted, range(60))
        assert sum(granted) == 30


def test_counters_of_periods_that_are_over_are_deleted(database: Database) -> None:
    counters = QuotaCounters(database, now)
    counters.reserve("key:ci", Quota("train", 5, "day"), 5)
    counters.clean()
    assert counters.reserve("key:ci", Quota("train", 5, "day"), 5).granted == 0
    QuotaCounters(database, lambda: NOON + timedelta(days=3)).clean()
    with database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(quota_counters)) == 0


def test_the_migration_makes_the_tables_that_the_code_means(database: Database) -> None:
    inspector = sa.inspect(database.engine)
    for table in (use_lines, use_reports, quota_counters):
        assert {column["name"] for column in inspector.get_columns(table.name)} == set(table.c.keys())
        assert inspector.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]


FULL_WIDTH = "\uff1d\uff0b\uff0d\uff20"
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(names=st.lists(TEXTS, max_size=5))
def test_a_csv_reads_back_and_computes_nothing(names: list[str]) -> None:
    written = b"".join(ledger_files.pieces("csv", (use(name=name) for name in names))).decode()
    assert written.endswith("\r\n")
    head, *rows = csv.reader(io.StringIO(written, newline=""))
    assert head[:4] == ["day", "principal", "name", "usage_class"]
    assert [row[2].removeprefix("'") for row in rows] == [name.removeprefix("'") for name in names]
    for row in rows:
        assert row[2].strip()[:1] not in ("=", "+", "-", "@", *FULL_WIDTH)


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", *(f"{sign}1" for sign in FULL_WIDTH)]
)
def test_a_name_that_a_spreadsheet_would_compute_begins_with_an_apostrophe(name: str) -> None:
    [_, row] = csv.reader(io.StringIO(b"".join(ledger_files.pieces("csv", [use(name=name)])).decode(), newline=""))
    assert row[2] == f"'{name}"


@pytest.mark.parametrize("count", [0, 1, 1000, 1001, 2000])
def test_both_forms_have_all_lines(count: int) -> None:
    uses = [use(f"key:{number}", requests=number, job_milliseconds=1500, cost_micros=2500) for number in range(count)]
    parsed = json.loads(b"".join(ledger_files.pieces("json", uses)))
    rows = list(csv.DictReader(io.StringIO(b"".join(ledger_files.pieces("csv", uses)).decode(), newline="")))
    assert [line["principal"] for line in parsed] == [row["principal"] for row in rows] == [u.principal for u in uses]
    assert all(line["requests"] == int(row["requests"]) for line, row in zip(parsed, rows, strict=True))
    for name, value in {"job_seconds": 1.5, "cost_estimate": 0.0025}.items():
        assert all(line[name] == float(row[name]) == value for line, row in zip(parsed, rows, strict=True))


def test_texts_of_a_json_are_as_they_are() -> None:
    [line] = json.loads(b"".join(ledger_files.pieces("json", [replace(use(), name='=ü"\n')])))
    assert line["name"] == '=ü"\n'
