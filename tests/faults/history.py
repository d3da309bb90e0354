"""What was done and answered, and what of that must never be seen: `Violation`s."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.faults.rest import Failed

# What a request that is right may be answered while parts fail. All else is a finding.
DOCUMENTED = frozenset(
    {
        *("UNAVAILABLE", "DEADLINE_EXCEEDED", "DEPENDENCY_UNAVAILABLE", "PART_UNHEALTHY", "OVERLOADED"),
        *("AUTH_STARTING", "AUDIT_UNAVAILABLE"),  # nothing is done that can't be noted (docs/access.md)
    }
)
# What the client says of a connection that broke, if the gateway is the part that failed.
BROKEN = frozenset(
    {
        *("ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError", "RemoteDisconnected"),
        *("IncompleteRead", "CONNECTION_BROKEN", "CIRCUIT_OPEN"),
    }
)


@dataclass
class Act:
    """How often something was done, and when last; how often it failed, and why."""

    done: int = 0
    last: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)


class History:
    """Kept by all who act, each in a thread of its own."""

    def __init__(self) -> None:
        self.acts: dict[str, Act] = {}
        self.violations: list[str] = []
        # Until then a broken connection is the gateway's end.
        self.gateway_fails_until = 0.0
        self._lock = threading.Lock()

    def succeeded(self, name: str) -> None:
        with self._lock:
            act = self.acts.setdefault(name, Act())
            act.done += 1
            act.last = time.monotonic()

    def failed(self, name: str, error: Failed) -> None:
        with self._lock:
            self.acts.setdefault(name, Act()).failed[error.reason] += 1
            known = error.reason in DOCUMENTED
            broken = error.reason in BROKEN and time.monotonic() < self.gateway_fails_until
        if not (known or broken):
            self.violate(f"{name}: an error that is not documented: {error}")

    def violate(self, what: str) -> None:
        with self._lock:
            self.violations.append(what)

    def table(self) -> str:
        """What was done and what failed, a line each."""
        lines = []
        for name, act in sorted(self.acts.items()):
            why = ", ".join(f"{reason} {count}" for reason, count in act.failed.most_common())
            lines.append(f"  {name:<24} {act.done:>6} done  {act.failed.total():>4} failed  {why}")
        return "\n".join(lines)


@dataclass
class Register:
    """One name that one caller writes, version after version, expecting the one before (check-and-set).

    A write that failed in doubt may still come, whenever; then the next one is refused. So of every version number at
    most one of the values that were tried for it may ever be read, and an acknowledged one always.
    """

    name: str
    acknowledged: dict[int, str] = field(default_factory=dict)
    tried: dict[int, set[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def newest(self) -> int:
        """The newest version that is known to be there."""
        with self._lock:
            return max(self.acknowledged, default=0)

    def attempt(self, version: int, value: str) -> None:
        with self._lock:
            self.tried.setdefault(version, set()).add(value)

    def acknowledge(self, version: int, value: str) -> None:
        with self._lock:
            self.acknowledged[version] = value

    def complaint(self, at_least: int, version: int, value: str) -> str:
        """What is wrong with a read that began when `at_least` was the newest; nothing if nothing is."""
        with self._lock:
            if version < at_least:
                return f"{self.name}: version {version} was read after {at_least} was acknowledged"
            known = self.acknowledged.get(version)
            if known is not None and known != value:
                return f"{self.name}: version {version} is {value}, acknowledged was {known}"
            if value not in self.tried.get(version, ()):
                return f"{self.name}: version {version} is {value}, which nobody wrote"
            # From now on it is there.
            self.acknowledged[version] = value
            return ""
