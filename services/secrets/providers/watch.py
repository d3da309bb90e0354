"""A thread a provider: asks whether it answers; of a replica, carries changes over and compares when that is time."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from services.secrets.providers.provider import SecretProvider
from services.secrets.providers.replica import Replica
from services.secrets.providers.states import Kind, State, States
from services.shared.errors import DomainError
from services.shared.ids import new_id

# How often a provider is asked that answers, and one that does not.
_CHECK = timedelta(seconds=30)
_CHECK_AGAIN = timedelta(seconds=2)
# How often it is looked for what expired; how long before the last check of a process that is gone, its last look was.
_EXPIRED = timedelta(seconds=10)
_EXPIRED_BEFORE = timedelta(minutes=1)
_COMPARE = timedelta(days=1)
# How long after a comparison that could not be made; each one costs many requests.
_COMPARE_AGAIN = timedelta(minutes=1)
# How long others wait for a process that died. Two at work would do no harm: they take turns at each secret.
_LEASE = timedelta(seconds=20)
_EXTEND = timedelta(seconds=5)

_log = structlog.get_logger()


class Watch:
    """Watches one provider. `tick` may be called by hand; the thread does it every `interval` seconds.

    Args:
        replica: None if the provider does not follow the primary.
    """

    def __init__(
        self,
        name: str,
        provider: SecretProvider,
        replica: Replica | None,
        states: States,
        clock: Callable[[], datetime],
        interval: float,
    ) -> None:
        self._name = name
        self._provider = provider
        self._replica = replica
        self._states = states
        self._clock = clock
        self._interval = interval
        self._holder = new_id()
        self._asked_at: datetime | None = None
        self._held_at = clock()
        self._tried_at: datetime | None = None
        self._expired_until: datetime | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"provider-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def tick(self) -> None:
        """Looks after the provider once."""
        known = self._states.all().get(self._name, State())
        if self._replica is not None:
            self._note_expired(self._replica, known)
        state = self._checked(known)
        if self._replica is None or state.error:
            return
        compare = self._is_comparison_due(state)
        if not compare and not self._replica.outbox.due(self._name, 1):
            return
        # One process at a time looks after a replica.
        if self._replica.leases.take(self._name, "", self._holder, _LEASE):
            self._held_at = self._clock()
            try:
                self._replica.synchronize(self._go_on)
                if compare:
                    self._compare(self._replica, state)
            finally:
                self._replica.leases.release(self._name, "", self._holder)

    def _note_expired(self, replica: Replica, known: State) -> None:
        """Goes on where the last look ended, be it in a process that is gone: what it noted is noted once more."""
        now = self._clock()
        since = self._expired_until or (known.checked_at or now) - _EXPIRED_BEFORE
        if now - since >= _EXPIRED:
            replica.outbox.note_expired(self._name, since, now)
            self._expired_until = now

    def _is_comparison_due(self, state: State) -> bool:
        now = self._clock()
        if state.problem and self._tried_at is not None and now - self._tried_at < _COMPARE_AGAIN:
            return False
        return state.comparing or state.compared_at is None or now - state.compared_at >= _COMPARE

    def _compare(self, replica: Replica, state: State) -> None:
        # Noted from before it began: a request that comes meanwhile is another one.
        began = self._tried_at = self._clock()
        try:
            found = replica.compare(self._go_on)
        except DomainError as error:
            _log.warning("a provider could not be compared", provider=self._name, reason=error.error_reason)
            self._states.record(self._name, problem=error.message[:255])
            return
        if found is None:
            return
        _log.info("a provider was compared with the primary", provider=self._name, different=len(found))
        # A replica that is new is filled. Otherwise what differs may do so by intention: who repairs it says so.
        mended = {Kind.MISSING, Kind.DIFFERENT} if state.repair and state.comparing else set()
        if state.compared_at is None:
            mended |= {Kind.MISSING}
        replica.outbox.note(self._name, [name for name, kind in found if kind in mended])
        self._states.found(self._name, found)
        self._states.record(self._name, compared_at=began, problem="")
        replica.synchronize(self._go_on)

    def _go_on(self) -> bool:
        if self._stop.is_set() or self._replica is None:
            return False
        now = self._clock()
        if now - self._held_at < _EXTEND:
            return True
        self._held_at = now
        return self._replica.leases.take(self._name, "", self._holder, _LEASE)

    def _checked(self, state: State) -> State:
        """Asks the provider, if that is time, and records what changed."""
        now = self._clock()
        if self._asked_at is not None and now - self._asked_at < (_CHECK_AGAIN if state.error else _CHECK):
            return state
        self._asked_at = now
        error = self._failure()
        if error != state.error:
            _log.warning("a provider changed", provider=self._name, error=error or "answers again")
            if not error and self._replica is not None:
                self._replica.outbox.hurry(self._name)
        self._states.record(self._name, error=error, checked_at=now)
        return self._states.all()[self._name]

    def _failure(self) -> str:
        try:
            self._provider.check()
        except DomainError as error:
            return error.message[:255]
        return ""

    def _run(self) -> None:
        while True:
            try:
                self.tick()
            except Exception as error:  # the next look is another chance
                _log.warning("a provider was not looked after", provider=self._name, error=type(error).__name__)
            if self._stop.wait(self._interval):
                return
