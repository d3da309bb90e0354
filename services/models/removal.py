"""Removes what is condemned: objects in the store, keys in the secrets service."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from services.models import condemned
from services.models.key_client import KeyClient, KeyServiceUnavailable
from services.models.store_local import LocalStore
from services.shared.database import Database

_log = structlog.get_logger()


@dataclass
class Removed:
    """What was there and is gone: object names, and a number of keys."""

    objects: set[str] = field(default_factory=set)
    keys: int = 0


class Remover:
    """Removes objects and keys whose names are condemned, as often as it takes."""

    def __init__(self, database: Database, store: LocalStore, keys: KeyClient, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._store = store
        self._keys = keys
        self._clock = clock

    def remove(self, names: Sequence[str]) -> Removed:
        """Removes what it can. What fails is logged and stays condemned: the next collection tries again."""
        removed = Removed()
        done = self._remove_objects([name for name in names if condemned.key_named(name) is None], removed)
        done += self._destroy_keys([name for name in names if condemned.key_named(name) is not None], removed)
        if done:
            with self._database.write() as connection:
                condemned.confirm(connection, done, self._clock())
        return removed

    def _remove_objects(self, names: list[str], removed: Removed) -> list[str]:
        done = []
        for name in names:
            try:
                if self._store.delete(name):
                    removed.objects.add(name)
                done.append(name)
            except OSError as error:
                _log.warning("an object could not be removed", object=name, error=str(error))
        return done

    def _destroy_keys(self, names: list[str], removed: Removed) -> list[str]:
        if not names:
            return []
        try:
            removed.keys = self._keys.destroy([name for name in map(condemned.key_named, names) if name is not None])
        except KeyServiceUnavailable as error:
            _log.warning("keys could not be destroyed", count=len(names), error=error.message)
            return []
        return names
