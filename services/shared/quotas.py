"""Quotas: so many requests of a class in each minute, hour or day of UTC, whatever the number of replicas.

Auth keeps the only count. A service takes requests out of it in blocks, before it lets them pass, so no quota is ever
exceeded. A block is one request, of large quotas at most a fiftieth: what one replica holds of it and does not use is
refused early by the others, and ends with the period.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from services.shared.access import OTHER_USE
from services.shared.errors import ResourceExhausted, Unavailable
from services.shared.identity import Quota

PERIODS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}

# One block of at most so much of a quota: two per cent.
_BLOCKS = 50
# Principals and classes whose leases are kept; one that is forgotten is unused to the end of its period.
_MOST_LEASES = 10_000
# Until auth is asked again after it did not answer: others do not wait for it meanwhile.
_PAUSE = timedelta(seconds=1)
_NEVER = datetime.min.replace(tzinfo=UTC)

_log = structlog.get_logger()


class QuotaExhausted(ResourceExhausted):
    reason = "QUOTA_EXHAUSTED"


class QuotaUnknown(Unavailable):
    reason = "DEPENDENCY_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The auth service does not answer, so your quota is not known. Try again.")


@dataclass(frozen=True, slots=True)
class Grant:
    """What auth gave out of a quota, what is left in it, and when the period ends."""

    granted: int
    remaining: int
    resets_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a quota is after one request. Of `remaining` other replicas may hold a part."""

    allowed: bool
    limit: int
    remaining: int
    resets_at: datetime
    resets_in: timedelta


@dataclass
class _Lease:
    """Requests of one period that may pass here."""

    ends_at: datetime = _NEVER
    available: int = 0
    # Left in the quota when auth was asked: without any nobody needs to ask again.
    remaining: int = 0
    # Passed while auth did not answer; taken from what it gives next.
    owed: int = 0
    ask_again_at: datetime = _NEVER
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, quota: Quota, now: datetime) -> None:
        """A new period, of which nobody here has used anything."""
        self.ends_at = period_start(now, quota.per) + PERIODS[quota.per]
        self.available, self.remaining, self.owed = 0, quota.requests, 0


def period_start(now: datetime, per: str) -> datetime:
    """The beginning of the minute, hour or day of UTC that `now` is in."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (now - midnight) // PERIODS[per] * PERIODS[per]


def block(requests: int) -> int:
    """How many requests are taken out of a quota at a time."""
    return max(1, requests // _BLOCKS)


class Leases:
    """What this process may let pass of every quota.

    Without an answer of auth, and no lease, requests of the class `other` pass: a short outage must not stop reads,
    and they are taken from the quota later. Those of other classes do not: a quota on them is a promise on cost. Who is
    let pass has an access token, which lives ten minutes; an API key is not even accepted without auth. Each replica
    lets pass no more than it knew to be left.

    Args:
        reserve: takes requests out of a principal's quota, as many as there are. Raises QuotaUnknown.
        clock: the time in UTC, which must be auth's within a second or so: a period ends by it.
    """

    def __init__(self, reserve: Callable[[str, Quota, int], Grant], clock: Callable[[], datetime]) -> None:
        self._reserve = reserve
        self._clock = clock
        self._leases: OrderedDict[tuple[str, Quota], _Lease] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, principal: str, quota: Quota) -> Standing:
        """Takes one request. Raises QuotaUnknown if auth must be asked and does not answer."""
        lease = self._lease(principal, quota)
        with lease.lock:
            now = self._clock()
            if lease.ends_at <= now:
                lease.begin(quota, now)
            allowed = lease.available > 0 or (lease.remaining > 0 and self._refill(lease, principal, quota, now))
            if allowed and lease.available:
                lease.available -= 1
            left = max(0, lease.available + lease.remaining - lease.owed)
            return Standing(allowed, quota.requests, left, lease.ends_at, max(lease.ends_at - now, timedelta(0)))

    def _refill(self, lease: _Lease, principal: str, quota: Quota, now: datetime) -> bool:
        """Takes a block out of the quota. Whether the request may pass."""
        grant = self._asked(lease, principal, quota) if lease.ask_again_at <= now else None
        if grant is None:
            if quota.usage_class != OTHER_USE or lease.owed >= lease.remaining:
                raise QuotaUnknown
            lease.owed += 1
            return True
        paid = min(lease.owed, grant.granted)
        lease.owed -= paid
        lease.available, lease.remaining, lease.ends_at = grant.granted - paid, grant.remaining, grant.resets_at
        return lease.available > 0

    def _asked(self, lease: _Lease, principal: str, quota: Quota) -> Grant | None:
        """Auth's answer; None if there is none."""
        try:
            return self._reserve(principal, quota, lease.owed + block(quota.requests))
        except QuotaUnknown:
            _log.warning("quota not known: auth does not answer", principal=principal, usage_class=quota.usage_class)
            lease.ask_again_at = self._clock() + _PAUSE
            return None

    def _lease(self, principal: str, quota: Quota) -> _Lease:
        with self._lock:
            lease = self._leases.setdefault((principal, quota), _Lease())
            self._leases.move_to_end((principal, quota))
            while len(self._leases) > _MOST_LEASES:
                self._leases.popitem(last=False)
            return lease


def exhausted(quota: Quota, standing: Standing) -> QuotaExhausted:
    """The error of a request beyond a quota."""
    many = "s" if quota.requests > 1 else ""
    return QuotaExhausted(
        f"The quota of {quota.requests} request{many} of class {quota.usage_class} per {quota.per} is used up. "
        f"It begins anew at {standing.resets_at:%Y-%m-%d %H:%M} UTC.",
        retry_after=standing.resets_in.total_seconds(),
        usage_class=quota.usage_class,
        per=quota.per,
        limit=str(quota.requests),
    )
