"""Makes a replica the same as the primary: one secret at a time, or all of them compared."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from services.secrets.providers.leases import Leases
from services.secrets.providers.outbox import Outbox
from services.secrets.providers.provider import Data, SecretProvider, ValueUnreadable
from services.secrets.providers.states import Kind, States
from services.shared.errors import DomainError, NotFound

_BATCH = 100

_log = structlog.get_logger()
# Of a value that is there and no JSON object: like no other.
_UNREADABLE: Data = {"": "unreadable"}


@dataclass(frozen=True)
class Replica:
    """A provider that follows the primary."""

    name: str
    provider: SecretProvider
    primary: SecretProvider
    outbox: Outbox
    states: States
    leases: Leases

    def synchronize(self, go_on: Callable[[], bool]) -> None:
        """Carries out the changes that are due, while it may go on."""
        while changes := self.outbox.due(self.name, _BATCH):
            for change in changes:
                if not go_on():
                    return
                try:
                    self._follow(change.name)
                except DomainError as error:
                    self.outbox.failed(change, error.message)
                except Exception as error:  # a change that nobody foresaw must not stand in the way of the others
                    _log.warning("a change was not carried over", provider=self.name, error=type(error).__name__)
                    self.outbox.failed(change, f"internal error ({type(error).__name__})")
                else:
                    self.outbox.done(change)
                    self.states.settled(self.name, change.name)

    def compare(self, go_on: Callable[[], bool]) -> list[tuple[str, Kind]] | None:
        """Where the replica differs; None if it may not go on. Reads every value of both once."""
        here, there = set(self.primary.list()), set(self.provider.list())
        found: list[tuple[str, Kind]] = []
        for name in sorted(here | there):
            if not go_on():
                return None
            if name not in there:
                found.append((name, Kind.MISSING))
            elif name not in here:
                found.append((name, Kind.UNEXPECTED))
            elif not _same(_read(self.primary, name), _read(self.provider, name)):
                found.append((name, Kind.DIFFERENT))
        return found

    def _follow(self, name: str) -> None:
        with self.leases.holding(self.name, name):
            wanted, found = _read(self.primary, name), _read(self.provider, name)
            if wanted is None:
                self.provider.delete(name)
            elif not _same(wanted, found):
                self.provider.put(name, wanted)


def _read(provider: SecretProvider, name: str) -> Data | None:
    """What it has; None if nothing."""
    try:
        return provider.get(name).data
    except NotFound:
        return None
    except ValueUnreadable:
        return _UNREADABLE


def _same(one: Data | None, other: Data | None) -> bool:
    # As JSON and not as Python has it, where `1 == True`.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
