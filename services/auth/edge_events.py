"""What happens at the edge before a service is asked: missing and bad credentials, refused origins, who fails often.

Each is a log line, a count in Prometheus and an audit event. Floods cost little: the audit log counts alike events.
"""

import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

import structlog
from prometheus_client import Counter

from services.auth.networks import network
from services.shared.audit.event import Event

_FAILURES = Counter("strongroom_auth_failures_total", "Refused credentials by cause.", ["cause"])
_REFUSED_ORIGINS = Counter("strongroom_refused_origins_total", "Cross-origin requests that were refused.")
_ALERTS = Counter("strongroom_auth_alerts_total", "Clients that failed often within a short time.")

# Causes are words of ours, each of which makes a series in Prometheus for ever: whatever else comes is one.
_CAUSE = re.compile(r"[a-z0-9 _-]{1,40}")
_MAX_CAUSES = 64
_OTHER = "other"
# Addresses remembered; the one that failed longest ago is forgotten first.
_MAX_ADDRESSES = 10_000
# Callers choose origins, paths and request ids: long ones do not fill the log.
_LOGGED_CHARACTERS = 128

_log = structlog.get_logger()


class EdgeEvents:
    """Tells log, metrics and audit log.

    Args:
        note: takes an audit event that nobody waits for.
        threshold: failures of one address within the window that are unusual.
        window: seconds.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        note: Callable[[Event], None],
        threshold: int,
        window: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._note = note
        self._threshold = threshold
        self._window = window
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._alerted: OrderedDict[str, float] = OrderedDict()
        self._causes: set[str] = set()
        self._lock = threading.Lock()

    def missing_key(self, method: str, *, address: str, request_id: str = "") -> None:
        """Somebody asked for what needs a credential, without one."""
        _log.info("auth.missing_key", **_logged(method=method, request_id=request_id, address=address))
        self._note(_refusal("auth.missing_key", "CREDENTIAL_MISSING", method, request_id, address))
        self.failed("missing", address)

    def invalid_key(self, method: str, cause: str, *, key_prefix: str, address: str, request_id: str = "") -> None:
        """Somebody showed a bad credential: `cause` says why it is bad, `key_prefix` names a key of our format."""
        where = _logged(method=method, request_id=request_id, address=address)
        _log.warning("auth.invalid_key", cause=cause, key_prefix=key_prefix, **where)
        self._note(_refusal("auth.invalid_key", "CREDENTIAL_INVALID", method, request_id, address, key_prefix))
        self.failed(cause, address)

    def origin_refused(self, origin: str, address: str, path: str, count: int = 1) -> None:
        """A browser asked on behalf of a site that may not: `count` times, of which this was the last. Not a failure of
        its user, who does not even know.
        """
        _log.warning("auth.origin_refused", **_logged(origin=origin, address=address, path=path))
        _REFUSED_ORIGINS.inc(count)
        # The path without its query, which may hold what nobody should see.
        resource = f"{origin[:_LOGGED_CHARACTERS]} {path.partition('?')[0][:_LOGGED_CHARACTERS]}"
        event = Event("auth.origin_refused", resource=resource, outcome="denied", address=address, count=count)
        self._note(event)

    def refused(self, event: Event) -> None:
        """A method of auth itself refused a call: a wrong password, a bad token, too few grants."""
        self.failed(event.reason.lower(), event.address)

    def failed(self, cause: str, address: str) -> None:
        """Counts a refused credential, and raises the alarm at the last of too many from one address."""
        _FAILURES.labels(self._label(cause)).inc()
        if address and self._is_unusual(network(address)):
            _ALERTS.inc()
            _log.warning("auth.many_failures", address=address, failures=self._threshold, seconds=self._window)
            self._note(Event("auth.many_failures", outcome="denied", reason="MANY_FAILURES", address=address, count=1))

    def _is_unusual(self, origin: str) -> bool:
        """Whether this failure makes too many within the window; True once a window."""
        now = self._clock()
        with self._lock:
            # The last `threshold` failures: if even the first of them is recent, they are too many.
            times = self._failures.setdefault(origin, deque(maxlen=self._threshold))
            times.append(now)
            self._failures.move_to_end(origin)
            if len(times) < self._threshold or now - times[0] > self._window:
                unusual = False
            else:
                unusual = now - self._alerted.get(origin, float("-inf")) > self._window
            if unusual:
                self._alerted[origin] = now
                self._alerted.move_to_end(origin)
            for remembered in (self._failures, self._alerted):
                while len(remembered) > _MAX_ADDRESSES:
                    remembered.popitem(last=False)
        return unusual

    def _label(self, cause: str) -> str:
        with self._lock:
            if cause not in self._causes and (len(self._causes) >= _MAX_CAUSES or not _CAUSE.fullmatch(cause)):
                return _OTHER
            self._causes.add(cause)
        return cause


def _refusal(kind: str, reason: str, method: str, request_id: str, address: str, key_prefix: str = "") -> Event:
    return Event(
        kind,
        key_prefix=key_prefix,
        method=method.removeprefix("/"),
        outcome="denied",
        code="UNAUTHENTICATED",
        reason=reason,
        request_id=request_id,
        address=address,
    )


def _logged(**texts: str) -> dict[str, str]:
    return {name: text[:_LOGGED_CHARACTERS] for name, text in texts.items()}
