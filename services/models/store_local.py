"""Objects on a local disk: complete and durable, or absent."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.shared.errors import AlreadyExists, NotFound
from strongroom.chunking import Buffer


class ObjectNotFound(NotFound):
    """The store has no object with this key."""

    reason = "OBJECT_NOT_FOUND"


class ObjectExists(AlreadyExists):
    """The store has an object with this key, and objects never change."""

    reason = "OBJECT_EXISTS"


@dataclass(frozen=True)
class StoredObject:
    """An object as listed: `size` in bytes, `modified` in seconds since the epoch."""

    key: str
    size: int
    modified: float


class LocalStore:
    """Keys look like `packs/ab/<id>`: lower-case letters, digits, `.`, `_` and `-`, in parts between `/`. ValueError for others."""

    def __init__(self, root: Path) -> None:
        raise NotImplementedError

    def create(self, key: str) -> "LocalWriter":
        """Begins an object. Nothing is visible until `commit`. A context manager: leaving it without commit discards."""
        raise NotImplementedError

    def put(self, key: str, data: Buffer) -> None:
        """Stores a small object. ObjectExists if there is one: of several writers exactly one wins."""
        raise NotImplementedError

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Reads a range, shorter only where the object ends. ObjectNotFound."""
        raise NotImplementedError

    def size(self, key: str) -> int:
        """Bytes of the object. ObjectNotFound."""
        raise NotImplementedError

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects below a folder such as `packs/`, or all."""
        raise NotImplementedError

    def delete(self, key: str) -> bool:
        """Removes an object, durably; False if there was none."""
        raise NotImplementedError

    def temporaries(self) -> Iterator[StoredObject]:
        """What unfinished writers hold, and crashed ones left: `modified` tells which."""
        raise NotImplementedError

    def delete_temporary(self, key: str) -> bool:
        """Removes one of `temporaries()`; False if there is none by now."""
        raise NotImplementedError


class LocalWriter:
    """Writes one object from its beginning to its end."""

    def append(self, data: Buffer) -> None:
        """Writes the next bytes; fast if they begin on a page and are a multiple of 4096."""
        raise NotImplementedError

    def commit(self) -> None:
        """Makes the object durable, then visible. ObjectExists if another was faster. Always closes the writer, even on error."""
        raise NotImplementedError

    def discard(self) -> None:
        """Removes what was written. Does nothing after `commit`."""
        raise NotImplementedError
