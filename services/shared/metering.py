"""Counts what callers use: in memory, reported every second.

A report keeps its id until it is acknowledged, so that one that is repeated counts once. What a killed process had
not reported is lost: about a second of use. An orderly stop loses nothing.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from datetime import datetime
from itertools import islice

import structlog
from prometheus_client import Counter
from ulid import ULID

from services.shared.call import Call
from services.shared.errors import FailedPrecondition, InvalidArgument
from services.shared.identity import Principal

# Seconds between two reports: the ledger lags by these and by the time of a report, two seconds together.
_REPORT_SECONDS = 1.0
# Lines of the ledger, and credentials, that are counted at most while auth does not answer. What comes in beyond is
# not counted.
_MOST_LINES = 10_000
# Of one report: with the longest names it stays below what auth takes as one message.
_REPORT_LINES = 2000

_UNCOUNTED = Counter("strongroom_use_not_counted_total", "Requests that are missing in the ledger of use.")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Use:
    """What one principal did of one class on one day: a line of the ledger, or what is to be added to one."""

    principal: str
    # The key's or user's when it was used last.
    name: str
    # Of UTC, such as `2026-11-21`.
    day: str
    usage_class: str
    requests: int = 0
    # Of them, those that were refused or failed.
    errors: int = 0
    # As messages, without framing.
    bytes_received: int = 0
    bytes_sent: int = 0
    job_milliseconds: int = 0
    # What these cost by the prices of jobs, in millionths: sums of them are exact.
    cost_micros: int = 0


@dataclass(frozen=True, slots=True)
class LastUse:
    """When a credential was used last, and how often since the report before."""

    credential_id: str
    at: datetime
    requests: int


@dataclass(frozen=True, slots=True)
class Report:
    """What is added to the ledger together, once."""

    id: str
    uses: tuple[Use, ...]
    last_uses: tuple[LastUse, ...]


@dataclass(slots=True)
class _Totals:
    """The numbers of a Use, in its order."""

    requests: int = 0
    errors: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    job_milliseconds: int = 0
    cost_micros: int = 0


@dataclass(slots=True)
class _Running:
    """A call that has not ended, and how much of its traffic is counted."""

    call: Call
    received: int = 0
    sent: int = 0


@dataclass
class _Counts:
    """What was counted since the last report."""

    names: dict[str, str] = field(default_factory=dict)
    lines: dict[tuple[str, str, str], _Totals] = field(default_factory=dict)
    last_uses: dict[str, tuple[datetime, int]] = field(default_factory=dict)


class Meter:
    """Counts by principal, day and class of use.

    Args:
        report: adds a report to the ledger. Raises InvalidArgument or FailedPrecondition for one that can never be
            added; whatever else it raises, the report is repeated.
        clock: the time in UTC.
        is_remote: whether another process takes the reports. One that never answered is not waited for at the end.
    """

    def __init__(
        self, report: Callable[[Report], None], clock: Callable[[], datetime], *, is_remote: bool = False
    ) -> None:
        self._report = report
        self._clock = clock
        self._counts = _Counts()
        self._running: dict[int, _Running] = {}
        self._unreported: deque[Report] = deque()
        self._is_behind = False
        self._is_hopeless = is_remote
        # Reentrant: a stream that the garbage collector ends is counted wherever it strikes, in here too.
        self._lock = threading.RLock()
        self._reporting = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def start(self) -> None:
        """Begins to report; a second time does nothing, because a service's start may be repeated."""
        if self._thread.ident is None:
            self._thread.start()

    def close(self, seconds: float = 5.0) -> None:
        """Reports what is left, and keeps trying for so many seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        began = time.monotonic()
        while self._running and time.monotonic() < began + seconds / 2:
            time.sleep(0.01)  # calls that were cut off, on their way to their end
        while not self.flush():
            if time.monotonic() >= began + seconds or self._is_hopeless:
                _log.error("use is lost: auth did not take the last reports", reports=len(self._unreported))
                return
            time.sleep(0.1)

    @contextmanager
    def watch(self, call: Call) -> Iterator[None]:
        """The layer that counts calls: each on the day it ends, its bytes while it runs. Strangers are not counted."""
        if call.method.public:
            yield
            return
        running = _Running(call)
        with self._lock:
            self._running[id(running)] = running
        try:
            yield
        finally:
            with self._lock:
                del self._running[id(running)]
                if _counts(call):
                    self._add_traffic(running)
                    self.count(call.principal, call.method.usage_class, requests=1, errors=int(call.outcome != "OK"))

    def count(self, principal: Principal, usage_class: str, *, requests: int = 0, errors: int = 0) -> None:
        """Counts requests of a principal, made now."""
        now = self._clock()
        with self._lock:
            totals = self._totals(principal, usage_class, now)
            if totals is None:
                _UNCOUNTED.inc(requests)
                return
            totals.requests += requests
            totals.errors += errors
            used, last_uses = principal.credential_id, self._counts.last_uses
            if used and (used in last_uses or len(last_uses) < _MOST_LINES):
                _, before = last_uses.get(used, (now, 0))
                last_uses[used] = (now, before + requests)

    def count_job(self, principal: Principal, usage_class: str, seconds: float, cost: float = 0.0) -> None:
        """Counts time that a job of a principal ran, and what it cost."""
        with self._lock:
            totals = self._totals(principal, usage_class, self._clock())
            if totals is not None:
                totals.job_milliseconds += round(seconds * 1000)
                totals.cost_micros += round(cost * 1_000_000)

    def flush(self) -> bool:
        """Reports what was counted. False if auth did not take it, which then is reported the next time."""
        with self._reporting:
            # Older reports first: until auth takes those, what is counted grows together.
            if not self._reported():
                return False
            self._unreported.extend(self._reports())
            return self._reported()

    def _reported(self) -> bool:
        """Whether auth has taken every report that was made so far."""
        while self._unreported:
            try:
                self._report(self._unreported[0])
            except (InvalidArgument, FailedPrecondition) as error:
                _log.error("a report of use was refused for good, its use is lost", error=error.message)
            except Exception as error:
                if not self._is_behind:
                    _log.warning("use is not reported, and kept for later", error=f"{type(error).__name__}: {error}")
                self._is_behind = True
                return False
            else:
                self._is_hopeless = False
            self._unreported.popleft()
        self._is_behind = False
        return True

    def _reports(self) -> Iterator[Report]:
        """What was counted, in reports that are not too large."""
        with self._lock:
            for running in list(self._running.values()):
                if _counts(running.call):
                    self._add_traffic(running)
            counts, self._counts = self._counts, _Counts()
        uses = (
            Use(_text(principal, 320), _text(counts.names[principal], 255), day, usage_class, *astuple(totals))
            for (day, principal, usage_class), totals in counts.lines.items()
        )
        last_uses = (LastUse(_text(used, 320), at, requests) for used, (at, requests) in counts.last_uses.items())
        while True:
            some, others = tuple(islice(uses, _REPORT_LINES)), tuple(islice(last_uses, _REPORT_LINES))
            if not (some or others):
                return
            yield Report(str(ULID.from_datetime(self._clock())), some, others)

    def _totals(self, principal: Principal, usage_class: str, now: datetime) -> _Totals | None:
        """The line to add to; None if there are too many."""
        line, lines = (now.date().isoformat(), principal.id, usage_class), self._counts.lines
        totals = lines.get(line)
        if totals is None:
            if len(lines) >= _MOST_LINES:
                return None
            totals = lines[line] = _Totals()
        self._counts.names[principal.id] = principal.name
        return totals

    def _add_traffic(self, running: _Running) -> None:
        """Counts the bytes of a call since it was looked at last."""
        call = running.call
        received, sent = call.bytes_received - running.received, call.bytes_sent - running.sent
        if received or sent:
            totals = self._totals(call.principal, call.method.usage_class, self._clock())
            running.received += received
            running.sent += sent
            if totals is not None:
                totals.bytes_received += received
                totals.bytes_sent += sent

    def _run(self) -> None:
        while not self._stopping.wait(_REPORT_SECONDS):
            self.flush()


def _counts(call: Call) -> bool:
    """Whether a call is somebody's use: services work for callers who are counted where they called."""
    return call.identified and not call.principal.service


def _text(text: str, length: int) -> str:
    """As every database takes it: names from outside may hold what is no character."""
    return text[:length].encode(errors="replace").decode().replace("\0", "")
