"""A store that could not be opened at the start: it is opened when it is back, and until then does not answer."""

from collections.abc import Callable, Iterator

from services.models.stores.store import ObjectWriter, Store, StoredObject
from strongroom.chunking import Buffer


class LateStore:
    """Tries to open the store at each use. All methods raise StoreUnavailable as long as `opening` does."""

    def __init__(self, opening: Callable[[], Store]) -> None:
        self._opening = opening
        self._opened: Store | None = None

    def create(self, key: str) -> ObjectWriter:
        return self._store().create(key)

    def put(self, key: str, data: Buffer) -> None:
        self._store().put(key, data)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._store().read(key, offset, length)

    def size(self, key: str) -> int:
        return self._store().size(key)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return self._store().list(prefix)

    def delete(self, key: str) -> bool:
        return self._store().delete(key)

    def unfinished(self) -> Iterator[StoredObject]:
        return self._store().unfinished()

    def discard_unfinished(self, key: str) -> bool:
        return self._store().discard_unfinished(key)

    def _store(self) -> Store:
        self._opened = self._opened or self._opening()
        return self._opened
