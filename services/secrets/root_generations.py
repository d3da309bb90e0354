"""The keys that wrap key-encryption keys: one is current, others are there while a move from them lasts.

Each is 32 random bytes, wrapped by a root key and open in memory while the service runs: whatever becomes of the
system that holds the root key, what runs goes on. A new one is made with every move, so that who had the old root key
and reads the database afterwards opens nothing.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.secrets import envelope
from services.secrets.root_keys.file import FileRootKey
from services.secrets.root_keys.root_key import RootKeyError, RootKeyUnavailable
from services.secrets.root_keys.source import RootKeySource
from services.secrets.tables import hold, kek_versions, root_keys
from services.shared.database import Database
from services.shared.ids import new_id


@dataclass(frozen=True)
class Generation:
    """A key that wraps KEKs: `keks` versions of KEKs are wrapped by it, and `name` is the root key that wraps it."""

    number: int
    name: str
    created_at: datetime
    keks: int


class RootGenerations:
    """Opens the generations that the database has, and knows which is the current one."""

    def __init__(self, database: Database, source: RootKeySource, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._source = source
        self._clock = clock
        self._opened: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Opens every generation, and makes the first one of a new database.

        Raises RootKeyError, WrongRootKey, RootKeyUnavailable.
        """
        if not self._rows():
            self.add(self._source.primary, unless_any=True)
        self.refresh()

    def refresh(self) -> None:
        """Opens what another process has added, and forgets what is gone. Raises as `open`."""
        rows = {row.generation: row for row in self._rows()}
        for number, row in rows.items():
            self._open(number, row)
        with self._lock:
            self._opened = {number: key for number, key in self._opened.items() if number in rows}

    def current(self, connection: Connection) -> tuple[int, bytes]:
        """The current generation and its key, which stays current until the writing transaction ends."""
        hold(connection, "root key")
        number = connection.execute(sa.select(sa.func.max(root_keys.c.generation))).scalar()
        if number is None:
            raise RootKeyUnavailable("The root key did not answer yet, so nothing can be encrypted. Try again.")
        return number, self.key(connection, number)

    def key(self, connection: Connection, number: int) -> bytes:
        """The key of a generation, 32 bytes. Raises as `open`."""
        known = self._opened.get(number)
        if known is not None:
            return known
        row = connection.execute(sa.select(root_keys).where(root_keys.c.generation == number)).one_or_none()
        if row is None:
            raise RootKeyError(f"Generation {number} of the root key is gone. Restore a backup.")
        return self._open(number, row)

    def add(self, name: str, *, unless_any: bool = False) -> int:
        """Makes a new generation under the named root key, the current one from now on; its number.

        Raises RootKeyUnknown, RootKeyError, RootKeyUnavailable: then nothing has changed.
        """
        root, key, context = self._source.open(name), envelope.new_key(), new_id()
        wrapped = root.wrap(key, context)
        # Some may encrypt and not decrypt: better known before anything rests on it.
        if root.unwrap(wrapped, context) != key:
            raise RootKeyError(f"The root key {root.place} does not give back what it has wrapped.")
        with self._database.write() as connection:
            hold(connection, "root key")
            newest = connection.execute(sa.select(sa.func.max(root_keys.c.generation))).scalar()
            if unless_any and newest is not None:
                return int(newest)  # another process was faster
            number = (newest or 0) + 1
            row = {"generation": number, "name": name, "context": context, "wrapped": wrapped, "is_direct": False}
            connection.execute(sa.insert(root_keys).values(**row, created_at=self._clock()))
        with self._lock:
            self._opened[number] = key
        return number

    def drop_unused(self) -> None:
        """Deletes the generations before the current one under which no KEK is any more."""
        used = sa.exists().where(kek_versions.c.root_generation == root_keys.c.generation)
        with self._database.write() as connection:
            number, _ = self.current(connection)
            gone = connection.execute(sa.delete(root_keys).where(root_keys.c.generation < number, ~used)).rowcount
        if gone:
            self._database.forget_deleted()
            self.refresh()

    def listing(self) -> list[Generation]:
        """All generations, the current one first."""
        r, count = root_keys.c, sa.func.count(kek_versions.c.version)
        query = (
            sa.select(r.generation, r.name, r.created_at, count.label("keks"))
            .join_from(root_keys, kek_versions, kek_versions.c.root_generation == r.generation, isouter=True)
            .group_by(r.generation, r.name, r.created_at)
            .order_by(r.generation.desc())
        )
        with self._database.read() as connection:
            return [Generation(*row) for row in connection.execute(query)]

    def _rows(self) -> Sequence[Row[Any]]:
        with self._database.read() as connection:
            return connection.execute(sa.select(root_keys)).all()

    def _open(self, number: int, row: Row[Any]) -> bytes:
        known = self._opened.get(number)
        if known is not None:
            return known
        root = self._source.open(row.name)
        if not row.is_direct:
            key = root.unwrap(row.wrapped, row.context)
        elif isinstance(root, FileRootKey):
            root.check(row.wrapped)
            key = root.key
        else:
            raise RootKeyError(f"The root key {row.name} was a file when this database was made. Configure that one.")
        with self._lock:
            self._opened[number] = key
        return key
