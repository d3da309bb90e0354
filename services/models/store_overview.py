"""The stores as an operator sees them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.models.copy_journal import CopyJournal, Lag
from services.models.replication import ReplicatedStore, StoreUnknown
from services.models.store_states import StoreState, StoreStates
from services.shared.metrics import Reading


@dataclass(frozen=True)
class StoreView:
    """A store: what it is, what was last seen of it (None: nothing yet), how far it is behind."""

    name: str
    kind: str
    is_primary: bool
    state: StoreState | None
    lag: Lag
    lag_seconds: float

    @property
    def repairing(self) -> bool:
        if self.state is None or self.state.repair_requested_at is None:
            return False
        repaired = self.state.repaired_at
        return repaired is None or repaired <= self.state.repair_requested_at


class StoreOverview:
    """Shows the stores, and has them repaired."""

    def __init__(
        self, stores: ReplicatedStore, states: StoreStates, journal: CopyJournal, clock: Callable[[], datetime]
    ) -> None:
        self._stores = stores
        self._states = states
        self._journal = journal
        self._clock = clock

    def all(self) -> list[StoreView]:
        """The primary first."""
        states, lags, now = self._states.all(), self._journal.lags(), self._clock()
        views = []
        for member in self._stores.members:
            lag = lags.get(member.name, Lag())
            seconds = max(0.0, (now - lag.since).total_seconds()) if lag.since else 0.0
            is_primary = member.name == self._stores.primary.name
            views.append(StoreView(member.name, member.kind, is_primary, states.get(member.name), lag, seconds))
        return views

    def readings(self) -> Iterator[Reading]:
        """The same for metrics; of a store that was not looked at yet nothing is said about its health."""
        for view in self.all():
            store = {"store": view.name}
            if view.state is not None:
                healthy = not view.state.error
                yield Reading("strongroom_store_healthy", "1 if the store answered when last asked.", healthy, store)
            yield Reading("strongroom_store_pending_objects", "Objects that the store lacks.", view.lag.objects, store)
            yield Reading(
                "strongroom_store_lag_seconds", "Seconds since the first of them is due.", view.lag_seconds, store
            )

    def request_repair(self, names: Sequence[str]) -> list[StoreView]:
        """Asks for a repair of these stores, of all if none is named. Raises StoreUnknown."""
        known = [member.name for member in self._stores.members]
        for name in names:
            if name not in known:
                raise StoreUnknown(f"There is no store '{name}'. There are: {', '.join(known)}.")
        self._states.request_repair(names or known)
        return self.all()
