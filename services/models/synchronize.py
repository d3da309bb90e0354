"""Brings a store what it lacks.

What was written while it was down stands in the journal. What it lost otherwise is found by a repair, which compares
what the store lists with what the index says it shall have, on demand and every day.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog

from services.models import condemned, copy_journal, copying, packs, primary_copies
from services.models import tables as t
from services.models.copy_journal import CopyJournal, PendingCopy
from services.models.replication import Member, ReplicatedStore
from services.models.stores.store import ObjectExists, ObjectNotFound, Store, StoreUnavailable
from services.shared.database import Database
from services.shared.errors import DomainError

# An object that no store has after so long was never written: the writer crashed between the note and the object.
_NEVER_WRITTEN = timedelta(hours=1)
_AT_ONCE = 100

_log = structlog.get_logger()


class NotThereYetError(Exception):
    """No store has the object; it may be about to be written."""


class Synchronizer:
    """Copies to one store."""

    def __init__(
        self,
        target: Member,
        stores: ReplicatedStore,
        database: Database,
        journal: CopyJournal,
        clock: Callable[[], datetime],
    ) -> None:
        self.target = target
        self._sources = [member for member in stores.members if member.name != target.name]
        self._is_primary = target.name == stores.primary.name
        self._database = database
        self._journal = journal
        self._clock = clock

    def synchronize(self, go_on: Callable[[], bool] = lambda: True) -> int:
        """Makes the copies that are due, while `go_on`; returns how many. What fails is tried again later."""
        made = 0
        while go_on() and (due := self._journal.due(self.target.name, _AT_ONCE)):
            for copy in due:
                if not go_on():
                    break
                made += self._attempt(copy)
        return made

    def repair(self) -> int:
        """Notes what the store lacks, or has in another size; returns how many objects. StoreUnavailable."""
        there = {
            found.key: found.size for folder in ("packs/", "manifests/") for found in self.target.store.list(folder)
        }
        with self._database.read() as connection:
            wanted = dict(self._wanted(connection))
        missing = [name for name in wanted if name not in there]
        # An object never changes; one of another size is cut, or somebody else's.
        wrong = [name for name, size in wanted.items() if size is not None and there.get(name, size) != size]
        self._remove_unwanted(there)
        with self._database.write() as connection:
            for names, replaces in ((missing, False), (wrong, True)):
                copies = [(self.target.name, name) for name in names]
                copy_journal.note(connection, copies, self._clock(), replaces=replaces)
        return len(missing) + len(wrong)

    def _remove_unwanted(self, there: Mapping[str, int]) -> None:
        """What was deleted in the primary alone, while it was down."""
        if self._is_primary:
            with self._database.read() as connection:
                if connection.execute(sa.select(t.primary_deletions.c.version).limit(1)).first() is None:
                    return
                unwanted = [name for name in there if primary_copies.unwanted(connection, name)]
            for name in unwanted:
                if self._elsewhere(name, there[name]):
                    self.target.store.delete(name)

    def _elsewhere(self, name: str, size: int) -> bool:
        for source in self._sources:
            with suppress(ObjectNotFound, StoreUnavailable):
                if source.store.size(name) == size:
                    return True
        return False

    def _wanted(self, connection: sa.Connection) -> Iterator[tuple[str, int | None]]:
        """What the store shall have, with the size if the index knows it."""
        found = sa.select(t.packs.c.pack_id, t.packs.c.size).where(t.packs.c.died_at.is_(None))
        listed = sa.select(t.versions.c.manifest_key)
        if self._is_primary:
            found = found.where(primary_copies.kept_pack())
            listed = listed.where(primary_copies.kept_version())
        for pack_id, size in connection.execute(found):
            yield packs.pack_key(pack_id), size
        for name in connection.scalars(listed):
            yield name, None

    def _attempt(self, copy: PendingCopy) -> bool:
        try:
            if self._needed(copy.name):
                self._copy(copy)
                if not self._needed(copy.name):  # condemned meanwhile, and perhaps removed before we wrote it
                    self.target.store.delete(copy.name)
        except NotThereYetError:
            if copy.noted_at > self._clock() - _NEVER_WRITTEN:
                self._journal.failed(copy, "")
                return False
        except DomainError as error:
            _log.warning("a copy was not made", store=copy.store, object=copy.name, error=error.message)
            self._journal.failed(copy, error.message)
            return False
        self._journal.done(copy)
        return True

    def _needed(self, name: str) -> bool:
        with self._database.read() as connection:
            if condemned.is_condemned(connection, name):
                return False
            return not (self._is_primary and primary_copies.unwanted(connection, name))

    def _copy(self, copy: PendingCopy) -> None:
        """Makes the copy from the first store that has it whole. NotThereYetError, or what the last one raised."""
        if not copy.replaces:
            with suppress(ObjectNotFound):
                self.target.store.size(copy.name)
                return
        failure: DomainError | None = None
        for source in self._sources:
            try:
                source.store.size(copy.name)
                self._copy_from(source.store, copy)
            except ObjectNotFound:
                continue
            except ObjectExists:
                return
            except DomainError as error:
                failure = error
            else:
                _log.info("copied", store=copy.store, object=copy.name, source=source.name)
                return
        raise failure or NotThereYetError

    def _copy_from(self, source: Store, copy: PendingCopy) -> None:
        folder, _, rest = copy.name.partition("/")
        if folder == "packs":
            pack_id = bytes.fromhex(rest.rpartition("/")[2])
            if copy.replaces:
                # What is damaged goes only when it is certain that there is better.
                copying.check_pack(source, pack_id)
                self.target.store.delete(copy.name)
            copying.copy_pack(source, self.target.store, pack_id)
            return
        with self._database.read() as connection:
            query = sa.select(t.versions.c.manifest_digest).where(t.versions.c.manifest_key == copy.name)
            digest = connection.scalar(query)
        if digest is None:
            raise NotThereYetError
        data = copying.read_manifest(source, copy.name, digest)
        if copy.replaces:
            self.target.store.delete(copy.name)
        self.target.store.put(copy.name, data)
