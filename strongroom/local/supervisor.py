"""Starts the parts, watches them, and stops them in order."""

import http.client
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from strongroom.local.administration import Admin
from strongroom.local.console import Console
from strongroom.local.errors import StartError
from strongroom.local.gateway import DRAIN_SECONDS
from strongroom.local.process import Part
from strongroom.local.questions import Edge, health

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Blocked, and taken one by one with sigtimedwait(2): nothing here is ever interrupted half-way.
_SIGNALS = (*_ENDING, signal.SIGCHLD)

_POLL_SECONDS = 0.04
_WATCH_SECONDS = 1.0
# Without an answer for so long, the user hears what is missing.
_PATIENCE_SECONDS = 15.0
# How often a part may die before everything was ready once.
_START_ATTEMPTS = 3
# Longer than a service gives its requests to finish.
_STOP_SECONDS = 25.0


@dataclass
class Backoff:
    """Seconds to wait before a part is started again: twice as long each time, anew after ten quiet seconds."""

    first: float = 0.25
    longest: float = 5.0
    quiet: float = 10.0
    deaths: int = 0

    def next(self, lived: float) -> float:
        """The next wait, for a part that lived so many seconds."""
        self.deaths = 1 if lived > self.quiet else self.deaths + 1
        return float(min(self.longest, self.first * 2 ** (self.deaths - 1)))


@dataclass
class Supervisor:
    """Runs parts until it is told to stop.

    Args:
        stages: the parts, in the order in which they stop; those of one stage stop together.
        edge: where the gateway listens now.
        admin: the gateway's administration.
        started: told of each process that starts.
        each_second: called so often, once everything was ready.
        ready: told once `/health` answers 200 for the first time.
    """

    stages: Sequence[Sequence[Part]]
    edge: Callable[[], Edge]
    admin: Admin
    console: Console
    started: Callable[[Part], None]
    ready: Callable[[], None]
    each_second: Callable[[], None]
    _backoffs: dict[str, Backoff] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    _impatient: bool = False

    @property
    def parts(self) -> list[Part]:
        return [part for stage in self.stages for part in stage]

    def run(self) -> None:
        """Returns when every part has stopped, after SIGINT, SIGTERM or SIGHUP.

        Raises StartError if a part does not start.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            # The order in which they start is of no matter to them, and a moment earlier for the slowest counts.
            for part in reversed(self.parts):
                self._start(part)
            if self._become_ready():
                self._watch()
            self.console.say("Stopping…")
            self._stop()
            self.console.say("Stopped.")
        finally:
            for part in self.parts:
                part.send(signal.SIGKILL)

    def _start(self, part: Part) -> None:
        part.start()
        self.started(part)

    def _become_ready(self) -> bool:
        """False if the user gave up."""
        complain_at = time.monotonic() + _PATIENCE_SECONDS
        while True:
            status, detail = health(self.edge())
            if status == http.client.OK:
                self.ready()
                return True
            if self._take_signal(_POLL_SECONDS):
                return False
            self._mend(attempts=_START_ATTEMPTS)
            if time.monotonic() > complain_at:
                self.console.trouble(f"Not ready yet. {detail}")
                complain_at = float("inf")

    def _watch(self) -> None:
        while not self._take_signal(_WATCH_SECONDS):
            self._mend()
            self.each_second()

    def _take_signal(self, seconds: float) -> bool:
        """Waits for a signal, or until the next part is due. True if it is time to end."""
        until_due = min(self._due.values(), default=float("inf")) - time.monotonic()
        taken = signal.sigtimedwait(_SIGNALS, max(0.0, min(seconds, until_due)))
        return taken is not None and taken.si_signo in _ENDING

    def _mend(self, attempts: int | None = None) -> None:
        """Notes which parts have died, and starts those again whose wait is over."""
        now = time.monotonic()
        for part in self.parts:
            if part.running:
                continue
            if part.name not in self._due:
                backoff = self._backoffs.setdefault(part.name, Backoff())
                wait = backoff.next(now - part.started_at)
                if attempts is not None and backoff.deaths >= attempts:
                    raise StartError(f"{part.name} does not start ({part.outcome()}); logs/{part.name}.log says why.")
                self.console.trouble(f"{part.name} died ({part.outcome()}); starting it again in {wait:g} s")
                self._due[part.name] = now + wait
            elif self._due[part.name] <= now:
                del self._due[part.name]
                self._start(part)
                self.console.say(f"{part.name} was started again")

    def _stop(self) -> None:
        """Stage after stage. A second Ctrl-C ends the waiting, and the parts."""
        self._due.clear()
        with suppress(OSError):  # a gateway that does not answer has nothing to finish
            self.admin.start_draining()
            self._wait(lambda: self.admin.active_requests() == 0, 2 * DRAIN_SECONDS)
        for stage in self.stages:
            if self._impatient:
                return
            for part in stage:
                part.send(signal.SIGTERM)
            self._wait(_stopped(stage), _STOP_SECONDS)

    def _wait(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not (done() or self._impatient) and time.monotonic() < deadline:
            self._impatient = self._take_signal(_POLL_SECONDS)


def _stopped(stage: Sequence[Part]) -> Callable[[], bool]:
    return lambda: not any(part.running for part in stage)
