"""Refusals, counted where they come in floods: whoever has no credential must not be able to fill the disk."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.shared.audit.event import ANONYMOUS, Event

# Seconds in which alike events are counted together.
PERIOD = 60.0
# Sorts of events told apart in a period, of each kind: of callers nobody knows, and of those who are known. What comes
# beyond them is counted as one sort more. A sort is at most two rows a period, of 400 bytes or, with the longest texts,
# 2 KiB: strangers, who can cause five kinds, fill some 80 KiB a minute and service, and 400 KiB whatever they try.
SORTS_OF_STRANGERS = 20
SORTS_OF_KNOWN = 200

_Key = tuple[str, str, str, str]


@dataclass
class _Tally:
    event: Event
    count: int = 0


class Denials:
    """Collects refusals until somebody writes them: the first of its sort at once, those alike at the period's end.

    Events are alike if kind, principal, method and address are; of the others' fields the last event's are kept.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._fresh: list[Event] = []
        self._tallies: dict[_Key, _Tally] = {}
        self._sorts: Counter[tuple[str, bool]] = Counter()
        self._lock = threading.Lock()

    def note(self, event: Event) -> None:
        """Takes an event; nobody waits for it."""
        with self._lock:
            tally = self._tallies.get(_key(event))
            if tally is None:
                event = self._admitted(event)
                tally = self._tallies.get(_key(event))
            if tally is None:
                self._tallies[_key(event)] = _Tally(event)
                self._fresh.append(event)
            else:
                tally.event = event
                tally.count += event.count

    def drain(self, *, end: bool = False) -> list[Event]:
        """What is to be written now; with `end`, or at the end of the period, with the counts of those alike."""
        now = self._clock()
        with self._lock:
            drained, self._fresh = self._fresh, []
            if end or now - self._began >= PERIOD:
                counted = (replace(tally.event, count=tally.count) for tally in self._tallies.values() if tally.count)
                drained += counted
                self._tallies.clear()
                self._sorts.clear()
                self._began = now
        return drained

    def _admitted(self, event: Event) -> Event:
        """The event, or what stands for all that are one sort too many."""
        is_stranger = event.principal == ANONYMOUS
        group = event.kind, is_stranger
        if self._sorts[group] < (SORTS_OF_STRANGERS if is_stranger else SORTS_OF_KNOWN):
            self._sorts[group] += 1
            return event
        rest = Event(event.kind, outcome=event.outcome, code=event.code, reason=event.reason, count=event.count)
        return rest if is_stranger else replace(rest, principal="*")


def _key(event: Event) -> _Key:
    return event.kind, event.principal, event.method, event.address
