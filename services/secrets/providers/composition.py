"""The providers of an installation as one: the embedded primary, replicas that follow it, others used by name."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from services.secrets.providers.configuration import EMBEDDED, ProvidersConfiguration
from services.secrets.providers.leases import Leases
from services.secrets.providers.outbox import Lag, Outbox
from services.secrets.providers.provider import Data, Revision, SecretAbsent, SecretProvider, Value
from services.secrets.providers.replica import Replica
from services.secrets.providers.states import Drift, State, States
from services.secrets.providers.watch import Watch
from services.shared.database import Database
from services.shared.errors import DomainError, InvalidArgument, ResourceExhausted
from services.shared.metrics import Reading

Clock = Callable[[], datetime]


class ProviderUnknown(InvalidArgument):
    reason = "PROVIDER_UNKNOWN"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"There is no provider {name!r}. There are: {', '.join(known)}.", provider=name)


class ProvidersBusy(ResourceExhausted):
    reason = "PROVIDERS_BUSY"

    def __init__(self) -> None:
        super().__init__("Too many requests wait for other providers. Try again.", retry_after=1.0)


@dataclass(frozen=True)
class ProviderView:
    """A provider as an operator sees it."""

    name: str
    kind: str
    # primary, replica, or named.
    role: str
    state: State
    lag: Lag
    lag_seconds: float
    drifted: int


class Providers:
    """What there is besides the vault, and how it fares.

    Args:
        calls: by name at a time. A provider that does not answer keeps each for seconds: so many threads it may take
            from those who ask for secrets and keys of this service.
    """

    def __init__(
        self,
        configuration: ProvidersConfiguration,
        opened: Mapping[str, SecretProvider],
        database: Database,
        outbox: Outbox,
        clock: Clock,
        interval: float,
        calls: int,
    ) -> None:
        self._calls = threading.BoundedSemaphore(calls)
        self._configuration = configuration
        self._opened = opened
        self._outbox = outbox
        self._clock = clock
        self._states = States(database, clock)
        self._leases = Leases(database, clock)
        remote = [name for name in opened if name != EMBEDDED]
        self.watches = [
            Watch(name, opened[name], self._replica(name), self._states, clock, interval) for name in remote
        ]

    def start(self) -> None:
        for watch in self.watches:
            watch.start()

    def close(self) -> None:
        for watch in self.watches:
            watch.close()

    def get(self, provider: str, name: str, revision: str = "") -> Value:
        """Reads from one provider. Raises as SecretProvider.get, and ProviderUnknown."""
        with self._named(provider) as found:
            return found.get(name, revision)

    def put(self, provider: str, name: str, data: Data, expected: str | None, *, allow_missing: bool) -> Revision:
        """Writes to one provider alone. Raises as SecretProvider.put, and ProviderUnknown, SecretBusy."""
        with self._named(provider) as found, self._leases.holding(provider, name):
            if expected is None and not allow_missing and not found.versions(name):
                raise SecretAbsent(name)
            return found.put(name, data, expected)

    def versions(self, provider: str, name: str) -> list[Revision]:
        """The versions that one provider has. Raises as SecretProvider.versions, and ProviderUnknown."""
        with self._named(provider) as found:
            return found.versions(name)

    def names(self, provider: str, prefix: str) -> list[str]:
        """What one provider has, in order. Raises ProviderUnknown."""
        with self._named(provider) as found:
            return sorted(found.list(prefix))

    def delete(self, provider: str, name: str) -> None:
        """Deletes from one provider alone. Raises SecretAbsent, ProviderUnknown, SecretBusy."""
        with self._named(provider) as found, self._leases.holding(provider, name):
            if not found.delete(name):
                raise SecretAbsent(name)

    def all(self) -> list[ProviderView]:
        """The primary first, then the replicas, then the others."""
        states, lags, drifted, now = self._states.all(), self._outbox.lags(), self._states.drifted(), self._clock()
        views = []
        for name in self._names():
            lag = lags.get(name, Lag()) if name in self._configuration.replicas else Lag()
            seconds = max(0.0, (now - lag.since).total_seconds()) if lag.since else 0.0
            state = states.get(name, State()) if name != EMBEDDED else State(checked_at=now)
            views.append(
                ProviderView(name, self._kind(name), self._role(name), state, lag, seconds, drifted.get(name, 0))
            )
        return views

    def readings(self) -> Iterator[Reading]:
        """The same for metrics; of a provider that was not looked at yet nothing is said about its health."""
        for view in self.all():
            provider = {"provider": view.name}
            if view.state.checked_at is not None:
                healthy = not view.state.error
                yield Reading("strongroom_provider_healthy", "1 if it answered when last asked.", healthy, provider)
            yield Reading("strongroom_provider_pending_secrets", "Changes it has not seen.", view.lag.secrets, provider)
            yield Reading(
                "strongroom_provider_lag_seconds", "Seconds since the first of them.", view.lag_seconds, provider
            )
            yield Reading("strongroom_provider_drifted_secrets", "Secrets it has otherwise.", view.drifted, provider)

    def request_comparison(self, names: Sequence[str], *, repair: bool) -> list[ProviderView]:
        """Asks for a comparison of these replicas, of all if none is named. Raises ProviderUnknown."""
        self._states.request(self._chosen(names), repair=repair)
        return self.all()

    def drift(
        self, names: Sequence[str], *, visible: Callable[[str], bool], after: tuple[str, str], limit: int
    ) -> list[Drift]:
        """What the last comparisons found. Raises ProviderUnknown."""
        return self._states.drift(self._chosen(names), visible=visible, after=after, limit=limit)

    def _chosen(self, names: Sequence[str]) -> Sequence[str]:
        replicas = self._configuration.replicas
        for name in names:
            if name not in replicas:
                raise ProviderUnknown(name, replicas or ("no replica",))
        return names or replicas

    @contextmanager
    def _named(self, name: str) -> Iterator[SecretProvider]:
        if name not in self._opened:
            raise ProviderUnknown(name, self._names())
        if not self._calls.acquire(blocking=False):
            raise ProvidersBusy
        try:
            yield self._opened[name]
        except DomainError as error:
            error.metadata.setdefault("provider", name)
            raise
        finally:
            self._calls.release()

    def _names(self) -> list[str]:
        first = (EMBEDDED, *self._configuration.replicas)
        return [*first, *(name for name in self._opened if name not in first)]

    def _role(self, name: str) -> str:
        if name == EMBEDDED:
            return "primary"
        return "replica" if name in self._configuration.replicas else "named"

    def _kind(self, name: str) -> str:
        return EMBEDDED if name == EMBEDDED else self._configuration.providers[name].kind

    def _replica(self, name: str) -> Replica | None:
        if name not in self._configuration.replicas:
            return None
        provider, primary = self._opened[name], self._opened[EMBEDDED]
        return Replica(name, provider, primary, self._outbox, self._states, self._leases)
