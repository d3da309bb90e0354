"""Removes what is condemned: objects in the store, keys in the secrets service."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import structlog

from services.models import condemned
from services.models.key_client import KeyClient, KeyServiceUnavailable
from services.models.stores.store import Store, StoreUnavailable
from services.shared.database import Database

K = TypeVar("K")

_log = structlog.get_logger()


class Remover:
    """Removes objects and keys whose names are condemned, as often as it takes."""

    def __init__(self, database: Database, store: Store, keys: KeyClient, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._store = store
        self._keys = keys
        self._clock = clock

    def remove(self, names: Sequence[str]) -> None:
        """Removes what it can. What fails is logged and stays condemned: the next collection tries again."""
        keys = {name: key_id for name in names if (key_id := condemned.key_named(name)) is not None}
        keks = {name: kek_id for name in names if (kek_id := condemned.kek_named(name)) is not None}
        # Keys first: without them the objects are noise, wherever a store that is slow or down keeps them.
        done = [name for name, kek_id in keks.items() if self._destroyed(self._keys.destroy_kek, kek_id)]
        if keys and self._destroyed(self._keys.destroy, list(keys.values())):
            done += keys
        done += self._remove_objects([name for name in names if name not in keys and name not in keks])
        if done:
            with self._database.write() as connection:
                condemned.confirm(connection, done, self._clock())

    def _remove_objects(self, names: list[str]) -> list[str]:
        done = []
        for name in names:
            try:
                self._store.delete(name)
                done.append(name)
            except StoreUnavailable as error:
                _log.warning("an object could not be removed", object=name, error=error.message)
        return done

    def _destroyed(self, destroy: Callable[[K], object], which: K) -> bool:
        try:
            destroy(which)
        except KeyServiceUnavailable as error:
            _log.warning("keys could not be destroyed", error=error.message)
            return False
        return True
