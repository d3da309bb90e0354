"""Which pack holds which blob, for more blobs than fit into memory."""

import sqlite3
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from services.models.packs import PackIndex


class BlobPlaces:
    """A table on disk that goes with the block."""

    def __init__(self) -> None:
        # An empty name is a private file that SQLite deletes at the end (https://www.sqlite.org/inmemorydb.html).
        self._table = sqlite3.connect("", check_same_thread=False)
        self._table.execute(
            "CREATE TABLE places (blob BLOB PRIMARY KEY, pack BLOB, offset INTEGER, length INTEGER) WITHOUT ROWID"
        )

    def add(self, index: PackIndex) -> None:
        """The blobs of a pack. A blob that an earlier pack had stays there."""
        rows = ((entry.blob_id, index.pack_id, entry.offset, entry.stored_length) for entry in index.entries)
        self._table.executemany("INSERT OR IGNORE INTO places VALUES (?, ?, ?, ?)", rows)

    def find(self, blob_ids: Iterable[bytes]) -> dict[bytes, tuple[bytes, int, int]]:
        """Pack id, offset and stored length of those blobs that are anywhere."""
        found = {}
        for blob_id in blob_ids:
            row = self._table.execute("SELECT pack, offset, length FROM places WHERE blob = ?", [blob_id]).fetchone()
            if row is not None:
                found[blob_id] = row
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()
