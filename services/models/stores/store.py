"""What a store of objects promises, whichever it is.

An object is complete and durable, or absent; it never changes. Keys look like `packs/ab/<id>`: parts of letters,
digits, `.`, `_` and `-`, none of which begins with `.`, `_` or `-`; any other raises ValueError.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from services.shared.errors import AlreadyExists, NotFound, ResourceExhausted, Unavailable
from strongroom.chunking import Buffer

# Everything below these is ours, and nothing else of a bucket, which may have others' objects, too.
FOLDERS = ("packs/", "manifests/", "index/", "checks/")
PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class ObjectNotFound(NotFound):
    """The store has no object with this key."""

    reason = "OBJECT_NOT_FOUND"


class ObjectExists(AlreadyExists):
    """The store has an object with this key, and objects never change."""

    reason = "OBJECT_EXISTS"


class StoreUnavailable(Unavailable):
    """The store does not answer, or not as it should: repeat later."""

    reason = "STORE_UNAVAILABLE"


class StoreFull(ResourceExhausted):
    """There is no room left in the store."""

    reason = "STORE_FULL"


@dataclass(frozen=True)
class StoredObject:
    """An object as listed: `size` in bytes, `modified` in seconds since the epoch."""

    key: str
    size: int
    modified: float


class ObjectWriter(Protocol):
    """Writes one object from its beginning to its end. A context manager: leaving it uncommitted discards."""

    def append(self, data: Buffer) -> None:
        """Writes the next bytes; the buffer may be used again afterwards."""

    def commit(self) -> None:
        """Makes the object durable, then visible. ObjectExists if another was faster. Closes the writer even so."""

    def discard(self) -> None:
        """Removes what was written; does nothing after `commit`, or a second time."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """Objects by key, for any number of threads. All methods may raise StoreUnavailable, those that write StoreFull."""

    def create(self, key: str) -> ObjectWriter:
        """Begins an object, unseen until it is committed."""

    def put(self, key: str, data: Buffer) -> None:
        """Stores an object at once. ObjectExists if there is one already."""

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Reads a range of an object, all of it by default; shorter only where the object ends. ObjectNotFound."""

    def size(self, key: str) -> int:
        """Bytes of an object. ObjectNotFound."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects in a folder such as `packs/` and below, in no order; all by default."""

    def delete(self, key: str) -> bool:
        """Removes an object, durably; False if there is none."""

    def unfinished(self) -> Iterator[StoredObject]:
        """What writers hold that have not committed, and what crashed ones left; their age tells which."""

    def discard_unfinished(self, key: str) -> bool:
        """Removes one of `unfinished`, whose key is the store's own; False if it is gone already."""


def key_parts(key: str) -> list[str]:
    """The parts of a key. Raises ValueError."""
    parts = key.split("/")
    if not all(PART.fullmatch(part) for part in parts):
        raise ValueError("not a key of an object")
    return parts


def folder(prefix: str) -> str:
    """What keys below a prefix begin with: nothing, or the prefix and a slash."""
    return f"{prefix}/" if prefix else ""


def check(store: Store) -> None:
    """Sees whether a store answers, may be written and never lets an object change. StoreUnavailable, StoreFull.

    Writes `checks/once`, which stays. A server that ignores the condition would let one writer overwrite another.
    """
    for _ in range(2):
        try:
            store.put("checks/once", b"Objects never change.\n")
        except ObjectExists:
            return
    raise StoreUnavailable("The store lets objects be overwritten: it has no conditional writes and can't be used.")
