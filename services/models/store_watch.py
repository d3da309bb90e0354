"""A thread a store: asks whether it answers, makes the copies that are due, and repairs it when that is time."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from services.models.copy_journal import CopyJournal
from services.models.replication import Member
from services.models.store_states import StoreState, StoreStates
from services.models.stores.store import ObjectNotFound, Store, StoreFull, StoreUnavailable, check
from services.models.synchronize import Synchronizer
from services.shared.ids import new_id

# A store is asked at every fifth look, and its row written anew so often if nothing changed.
_LOOKS = 5
_WRITE = timedelta(seconds=60)
_REPAIR = timedelta(days=1)

_log = structlog.get_logger()


class StoreWatch:
    """Watches one store. `tick` may be called by hand; the thread does it every `interval` seconds."""

    def __init__(
        self,
        synchronizer: Synchronizer,
        states: StoreStates,
        journal: CopyJournal,
        clock: Callable[[], datetime],
        interval: float,
        *,
        alone: bool,
    ) -> None:
        self._synchronizer = synchronizer
        self._states = states
        self._journal = journal
        self._clock = clock
        self._interval = timedelta(seconds=interval)
        # There is no other store to copy from.
        self._alone = alone
        self._holder = new_id()
        self._asked_at: datetime | None = None
        # Whether this process has seen it keep its promises since it last failed.
        self._sure = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"store-{self._store.name}", daemon=True)

    @property
    def _store(self) -> Member:
        return self._synchronizer.target

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def tick(self) -> None:
        """Looks after the store once."""
        state = self._checked(self._states.all().get(self._store.name))
        if state is None or state.error or self._alone:
            return
        repair = _repair_due(state, self._clock())
        if not repair and not self._journal.due(self._store.name, 1):
            self._note_synced(state)
        elif self._states.hold(self._store.name, self._holder):
            try:
                self._work(repair=repair)
            finally:
                self._states.release(self._store.name, self._holder)

    def _work(self, *, repair: bool) -> None:
        if repair:
            # Noted from before it began: a request that comes meanwhile is another one.
            began = self._clock()
            found = self._synchronizer.repair()
            _log.info("a store was compared with the index", store=self._store.name, missing=found)
            self._states.record(self._store.name, repaired_at=began)
        self._synchronizer.synchronize(self._go_on)

    def _go_on(self) -> bool:
        return not self._stop.is_set() and self._states.hold(self._store.name, self._holder)

    def _checked(self, state: StoreState | None) -> StoreState | None:
        """Asks the store, if that is time, and records what changed."""
        now = self._clock()
        asked_lately = self._asked_at is not None and now - self._asked_at < self._interval * _LOOKS
        if state is not None and not state.error and asked_lately:
            return state
        self._asked_at = now
        sure = state is not None and not state.error and self._sure
        error = _failure_of(self._store.store, thorough=not sure and not self._alone)
        self._sure = not error
        changed = state is None or state.error != error
        if state is None or changed or now - state.checked_at >= _WRITE:
            self._states.record(self._store.name, error=error, checked_at=now)
        if changed and error:
            _log.warning("a store does not answer", store=self._store.name, error=error)
        if changed and not error:
            self._journal.hurry(self._store.name)
        return self._states.all().get(self._store.name)

    def _note_synced(self, state: StoreState) -> None:
        now = self._clock()
        behind = self._store.name in self._journal.lags()
        if not behind and (state.synced_at is None or now - state.synced_at >= _WRITE):
            self._states.record(self._store.name, synced_at=now)

    def _run(self) -> None:
        while True:
            try:
                self.tick()
            except Exception as error:  # the next look is another chance
                _log.warning("a store was not looked after", store=self._store.name, error=type(error).__name__)
            if self._stop.wait(self._interval.total_seconds()):
                return


def _repair_due(state: StoreState, now: datetime) -> bool:
    requested, repaired = state.repair_requested_at, state.repaired_at
    return repaired is None or now - repaired >= _REPAIR or (requested is not None and requested >= repaired)


def _failure_of(store: Store, *, thorough: bool) -> str:
    """Empty if the store answers; `thorough`: and may be written, and keeps its promises."""
    try:
        if thorough:
            check(store)
        else:
            store.size("checks/once")
    except ObjectNotFound:
        return ""
    except (StoreUnavailable, StoreFull) as error:
        return error.message[:255]
    return ""
