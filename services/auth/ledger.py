"""The ledger of use: what every principal did, by day and class, over all services and replicas."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from ulid import ULID

from services.auth import ledger_pages
from services.auth.key_versions import KIND
from services.auth.ledger_pages import Query
from services.auth.tables import api_key_versions as v
from services.auth.tables import api_keys as k
from services.auth.usage_tables import use_lines as lines
from services.auth.usage_tables import use_reports as reports
from services.shared.database import Database
from services.shared.errors import FailedPrecondition, InvalidArgument, Unavailable
from services.shared.identity import Principal
from services.shared.metering import LastUse, Report, Use

# A report older than the first is refused; the ids of those that were recorded are kept for the second, longer by more
# than clocks differ.
_OLDEST = timedelta(days=1)
_REMEMBERED = timedelta(days=2)
_SUMS = ("requests", "errors", "bytes_received", "bytes_sent", "job_milliseconds", "cost_micros")
# Lines read at a time for an export.
_BATCH = 1000


class ReportTooOld(FailedPrecondition):
    reason = "REPORT_TOO_OLD"


class ReportInvalid(InvalidArgument):
    reason = "REPORT_INVALID"


class LedgerBusy(Unavailable):
    reason = "LEDGER_BUSY"


class Ledger:
    """Adds reports, each once, and shows what they come to."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def record(self, report: Report) -> None:
        """Adds a report to the ledger, all of it or nothing. One that was added before is left alone.

        Raises:
            FailedPrecondition: REPORT_TOO_OLD: it is not known any more whether it was added.
            InvalidArgument: REPORT_INVALID: it does not fit, however often it is repeated.
            Unavailable: LEDGER_BUSY: try again.
        """
        now = self._clock()
        if ULID.from_str(report.id).datetime < now - _OLDEST:
            raise ReportTooOld("The report is too old: whether its use has been counted is not known any more.")
        try:
            with self._database.write() as connection:
                if _is_new(connection, report.id, now):
                    _add_lines(connection, report.uses)
                    _add_to_keys(connection, report)
        except sa.exc.DataError:
            raise ReportInvalid("A text or a number of the report is too long for the ledger.") from None
        except sa.exc.OperationalError:
            raise LedgerBusy("The ledger of use can't be written. Try again.") from None

    def page(self, caller: Principal, query: Query, size: int, page_token: str) -> tuple[list[Use], str]:
        """A page of lines, the latest day first, and the next page's token, empty on the last.

        Raises InvalidArgument for days and tokens that are none, PermissionDenied for somebody else's use without
        `usage.read`.
        """
        with self._database.read() as connection:
            wanted = ledger_pages.wanted(connection, caller, query, self._clock().date())
            found = _lines(connection, ledger_pages.after(wanted, page_token).limit(size + 1))
        more = len(found) > size
        return found[:size], ledger_pages.token(found[size - 1]) if more else ""

    def export(self, caller: Principal, query: Query) -> Iterator[Use]:
        """All lines in that order; the errors of `page` are raised before the first."""
        with self._database.read() as connection:
            wanted = ledger_pages.wanted(connection, caller, query, self._clock().date())
        return self._exported(wanted)

    def clean(self) -> None:
        """Forgets the ids of reports that would be refused."""
        with self._database.write() as connection:
            connection.execute(sa.delete(reports).where(reports.c.recorded_at < self._clock() - _REMEMBERED))

    def _exported(self, wanted: sa.Select[Any]) -> Iterator[Use]:
        page_token = ""
        while True:
            # A connection a batch: none stays open between two items of a generator.
            with self._database.read() as connection:
                found = _lines(connection, ledger_pages.after(wanted, page_token).limit(_BATCH))
            yield from found
            if len(found) < _BATCH:
                return
            page_token = ledger_pages.token(found[-1])


def _is_new(connection: sa.Connection, report_id: str, now: datetime) -> bool:
    """Notes the report's id. False if it was there."""
    if connection.dialect.name == "postgresql":
        # Who revokes several keys takes their rows in another order than we do below. Whoever of us waits in a circle
        # gives up before PostgreSQL (deadlock_timeout, a second) makes the other fail: a report is repeated.
        connection.execute(sa.text("SET LOCAL lock_timeout = '500ms'"))
    insert = _insert(connection, reports).values(id=report_id, recorded_at=now).on_conflict_do_nothing()
    return connection.scalar(insert.returning(reports.c.id)) is not None


def _add_lines(connection: sa.Connection, uses: Iterable[Use]) -> None:
    insert = _insert(connection, lines)
    new = insert.excluded
    sums = {name: lines.c[name] + new[name] for name in _SUMS}
    add = insert.on_conflict_do_update(index_elements=list(lines.primary_key), set_=sums | {"name": new.name})
    # In one order everywhere, so that two replicas do not wait for each other.
    rows = sorted(({c.name: getattr(use, c.name) for c in lines.c} for use in uses), key=_line_key)
    if rows:
        connection.execute(add, rows)


def _add_to_keys(connection: sa.Connection, report: Report) -> None:
    """Keys show how often and when they were used last, by whatever token."""
    uses = {last.credential_id.removeprefix(f"{KIND}:"): last for last in report.last_uses if _is_key(last)}
    owners = sa.select(v.c.id, v.c.key_id).where(v.c.id.in_(uses))
    key_of = {row.id: row.key_id for row in connection.execute(owners)}
    counts: dict[str, int] = {}
    for use in report.uses:
        kind, _, key_id = use.principal.partition(":")
        if kind == KIND:
            counts[key_id] = counts.get(key_id, 0) + use.requests
    moments: dict[str, datetime] = {}
    for version, key_id in key_of.items():
        moments[key_id] = max(uses[version].at, moments.get(key_id, uses[version].at))
    _update(connection, k, [{"row": key, "more": more} for key, more in sorted(counts.items())], ["usage_count"])
    _update(connection, k, [{"row": key, "at": at} for key, at in sorted(moments.items())], ["last_used_at"])
    versions = [{"row": id_, "more": uses[id_].requests, "at": uses[id_].at} for id_ in sorted(key_of)]
    _update(connection, v, versions, ["usage_count", "last_used_at"])


def _update(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], columns: list[str]) -> None:
    at = sa.bindparam("at", type_=table.c.last_used_at.type)
    changes: dict[str, Any] = {
        "usage_count": table.c.usage_count + sa.bindparam("more"),
        # Another service may have told of a later moment.
        "last_used_at": sa.case((table.c.last_used_at > at, table.c.last_used_at), else_=at),
    }
    change = sa.update(table).where(table.c.id == sa.bindparam("row")).values({c: changes[c] for c in columns})
    if rows:
        connection.execute(change, rows)


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """The dialect's INSERT, which knows ON CONFLICT; the two are alike."""
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def _lines(connection: sa.Connection, wanted: sa.Select[Any]) -> list[Use]:
    return [Use(**row._mapping) for row in connection.execute(wanted)]


def _line_key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[column.name] for column in lines.primary_key)


def _is_key(last: LastUse) -> bool:
    return last.credential_id.startswith(f"{KIND}:")
