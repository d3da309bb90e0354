"""The mixed load, the faults that it meets one after the other, and what came of it."""

import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.faults.history import History
from tests.faults.installation import DATABASE, SERVICES, Installation
from tests.faults.load import Caller, callers
from tests.faults.rest import Failed

# Seconds after which everybody must succeed again.
RECOVERY = 10.0
# The least and the most that a fault lasts.
_LASTS = (0.5, 3.0)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and how it is put right. `total`: there is no other who could do the work meanwhile."""

    name: str
    begin: Callable[[], None]
    heal: Callable[[], None]
    total: bool = False


@dataclass
class Report:
    """What came of a run."""

    history: History
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def violations(self) -> list[str]:
        return self.history.violations

    def __str__(self) -> str:
        lines = [
            f"{len(self.faults)} faults: {', '.join(self.faults)}",
            self.history.table(),
            f"  slowest recovery {self.slowest:.1f} s",
            *(f"VIOLATION {what}" for what in self.violations),
        ]
        return "\n".join(lines)


class Chaos:
    """Runs the load against an installation that has lines, and lets parts fail.

    Args:
        seed: of the order of faults; the same seed lets the same things fail, if not at the same moment.
        tell: told each fault.
        recovery: seconds after which everybody must succeed again.
    """

    def __init__(
        self,
        installation: Installation,
        seed: int,
        tell: Callable[[str], None] = lambda _line: None,
        *,
        recovery: float = RECOVERY,
    ) -> None:
        self._recovery = recovery
        self._installation = installation
        self._random = random.Random(seed)
        self._tell = tell
        self._stop = threading.Event()
        self.history = History()
        self._report = Report(self.history)
        self._bag: list[Fault] = []

    def run(self, seconds: float) -> Report:
        """Faults for so long; then everything must be well, and everything acknowledged there."""
        arguments = self._installation.url, self._installation.admin_key, self.history, self._installation.folder
        everybody = callers(*arguments)
        with ThreadPoolExecutor(len(everybody)) as threads:
            acting = [threads.submit(self._act, caller) for caller in everybody]
            try:
                self._recovered("the start", everybody, 30)
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    self._let_fail(self._next(), everybody)
            finally:
                self._stop.set()
            for each in acting:
                each.result()
        self._settle(everybody)
        return self._report

    def _act(self, caller: Caller) -> None:
        while not self._stop.is_set():
            try:
                caller.act()
            except Failed as error:
                self.history.failed(caller.name, error)
                self._stop.wait(0.1)
            else:
                self.history.succeeded(caller.name)

    def _let_fail(self, fault: Fault, everybody: list[Caller]) -> None:
        self._report.faults.append(fault.name)
        self._tell(fault.name)
        began = time.monotonic()
        with ExitStack() as healing:
            healing.callback(fault.heal)
            fault.begin()
            if not fault.total:
                self._recovered(f"{fault.name}, which the other replica stands in for", everybody)
            self._stop.wait(max(0.0, began + self._random.uniform(*_LASTS) - time.monotonic()))
        began = time.monotonic()
        self._recovered(f"{fault.name} is over", everybody)
        # Of two replicas one is always well: the next fault waits until the gateway has seen that this one is again.
        try:
            self._installation.wait_used(seconds=max(0.1, began + self._recovery - time.monotonic()))
        except TimeoutError:
            self.history.violate(f"{self._recovery:g} s after {fault.name} was over the gateway leaves a replica out")

    def _recovered(self, after: str, everybody: list[Caller], within: float | None = None) -> None:
        """Returns when everybody has succeeded once more."""
        within = self._recovery if within is None else within
        before = {caller.name: self._done(caller) for caller in everybody}
        began = time.monotonic()
        while waiting := [caller.name for caller in everybody if self._done(caller) == before[caller.name]]:
            if time.monotonic() - began > within:
                self.history.violate(f"{within:g} s after {after}: {', '.join(waiting)} without success")
                break
            time.sleep(0.02)
        self._report.slowest = max(self._report.slowest, time.monotonic() - began)

    def _done(self, caller: Caller) -> int:
        act = self.history.acts.get(caller.name)
        return act.done if act else 0

    def _settle(self, everybody: list[Caller]) -> None:
        self._installation.wait_healthy(self._recovery)
        for caller in everybody:
            try:
                caller.settle()
            except Failed as error:
                self.history.violate(f"{caller.name}: when all was well again: {error}")

    def _next(self) -> Fault:
        """Each kind once, in any order, before one comes again."""
        if not self._bag:
            self._bag = self._faults()
            self._random.shuffle(self._bag)
        return self._bag.pop()

    def _faults(self) -> list[Fault]:
        made = self._installation
        kinds = [self._killed, self._killed, self._rolled, self._stopped, self._stopped]
        single = [kind(self._random.choice(list(made.replicas))) for kind in kinds]
        lines = [self._line(self._random.choice(list(made.replicas)), state) for state in ("slow", "cut", "silent")]
        database = [self._line(DATABASE, state, total=True) for state in ("cut", "silent")]
        return [*single, *lines, *database, self._service_killed(self._random.choice(SERVICES)), self._gateway_killed()]

    def _killed(self, name: str) -> Fault:
        return Fault(f"kill {name}", lambda: self._installation.end(name), lambda: self._installation.start(name))

    def _rolled(self, name: str) -> Fault:
        def begin() -> None:
            self._installation.end(name, signal.SIGTERM)

        return Fault(f"roll {name}", begin, lambda: self._installation.start(name))

    def _stopped(self, name: str) -> Fault:
        replica = self._installation.replicas[name]
        return Fault(f"stop {name}", lambda: replica.signal(signal.SIGSTOP), lambda: replica.signal(signal.SIGCONT))

    def _line(self, name: str, state: str, *, total: bool = False) -> Fault:
        turn = self._installation.turn
        return Fault(f"{state} {name}", lambda: turn(name, state), lambda: turn(name, "pass"), total)

    def _service_killed(self, service: str) -> Fault:
        names = [name for name, replica in self._installation.replicas.items() if replica.service == service]

        def begin() -> None:
            for name in names:
                self._installation.end(name)

        def heal() -> None:
            for name in names:
                self._installation.start(name, wait=False)

        return Fault(f"kill all of {service}", begin, heal, total=True)

    def _gateway_killed(self) -> Fault:
        def begin() -> None:
            self.history.gateway_fails_until = time.monotonic() + self._recovery
            self._installation.restart_gateway()

        return Fault("kill gateway", begin, lambda: None, total=True)
