"""Garbage collection: finds what nothing refers to and removes it.

An upload in flight loses nothing to it. The candidates among objects and keys are listed before the transaction that
looks for references to them; while any upload is open, the young among them are left alone; what is condemned nobody
may refer to afterwards (`condemned`); and rows of chunks are deleted under the lock under which leases are taken
(`tables.hold_references`).
"""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import sqlalchemy as sa
from ulid import ULID

from services.models import chunk_index, condemned, guesses, manifests, ml_tables, packs, uploads
from services.models import tables as t
from services.models.index_identity import IndexIdentity, IndexStale
from services.models.key_client import KeyClient
from services.models.managers import KEKS
from services.models.removal import Remover
from services.models.stores.store import ObjectNotFound, Store, StoredObject, StoreUnavailable
from services.shared.database import Database

N = TypeVar("N", str, bytes)

# What is younger is left alone: it may belong to an upload in flight, or a reader may be at it still.
OBJECT_AGE = timedelta(hours=1)
PACK_AGE = timedelta(hours=24)
# How long a removed name is remembered: longer than any upload lives.
_REMEMBERED = timedelta(days=7)


@dataclass
class Collected:
    """What was removed, or would be; sizes in bytes."""

    expired_uploads: int = 0
    deleted_chunks: int = 0
    deleted_packs: int = 0
    deleted_manifests: int = 0
    deleted_temporary_files: int = 0
    destroyed_keys: int = 0
    repacked_packs: int = 0
    freed_bytes: int = 0


@dataclass(frozen=True)
class _Candidates:
    """Objects old enough to go, by name, and keys; which of them are garbage is not known yet."""

    packs: dict[str, StoredObject]
    manifests: dict[str, StoredObject]
    keys: set[str]
    keks: set[str]
    temporaries: dict[str, StoredObject]

    def older(self, than: datetime) -> "_Candidates":
        """Those of them that were made before then."""
        keys = {key for key in self.keys if _made(key) <= than}
        keks = {kek for kek in self.keks if _made(kek) <= than}
        objects = (_older(found.values(), than) for found in (self.packs, self.manifests, self.temporaries))
        packs, manifests, temporaries = objects
        return _Candidates(packs, manifests, keys, keks, temporaries)


class _DryRunError(Exception):
    """Rolls a transaction back that was only to count."""


class Collector:
    """Collects garbage. Several may run at a time, in one process or many.

    Args:
        repack: moves what is left of sparse packs that were made before then; returns how many it made garbage.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        keys: KeyClient,
        remover: Remover,
        identity: IndexIdentity,
        repack: Callable[[datetime], int],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._keys = keys
        self._remover = remover
        self._identity = identity
        self._repack = repack
        self._clock = clock

    def collect(self, *, dry_run: bool = False, min_age: timedelta | None = None) -> Collected:
        """Collects, or with `dry_run` says what it would.

        `min_age` replaces the age of one hour for objects and keys and that of 24 hours for packs; but while an upload
        is open, what may be its own is left alone for an hour. Raises KeyServiceUnavailable; StoreUnavailable;
        IndexStale where the index has forgotten what the stores hold, which must not pass for garbage.
        """
        self._trust_index(dry_run=dry_run)
        now = self._clock()
        object_age, pack_age = (OBJECT_AGE, PACK_AGE) if min_age is None else (min_age, min_age)
        candidates = self._candidates(now, object_age, pack_age)
        result = Collected()
        doomed: list[str] = []
        with suppress(_DryRunError), self._database.write() as connection:
            t.hold_references(connection, removing=True)
            result.expired_uploads = uploads.expire(connection, now)
            if uploads.any_open(connection):
                candidates = candidates.older(now - OBJECT_AGE)
            doomed = self._sweep(connection, candidates, now, now - pack_age, result)
            if dry_run:
                raise _DryRunError
        self._count(doomed, candidates, result)
        if not dry_run:
            self._remove(doomed, candidates)
            result.repacked_packs = self._repack(now - pack_age)
        return result

    def _trust_index(self, *, dry_run: bool) -> None:
        if not dry_run:
            self._identity.prove()
        elif problem := self._identity.problem():
            raise IndexStale(problem)

    def _candidates(self, now: datetime, object_age: timedelta, pack_age: timedelta) -> _Candidates:
        # Keys first, objects next: a commit makes its key, then its manifest, then its rows.
        seconds = int(object_age.total_seconds())
        keys = set(self._keys.list(seconds))
        keks = {kek for kek in self._keys.list_keks(seconds) if kek.startswith(KEKS)}
        return _Candidates(
            packs=_older(self._store.list("packs/"), now - pack_age),
            manifests=_older(self._store.list("manifests/"), now - object_age),
            keys=keys,
            keks=keks,
            temporaries=_older(self._store.unfinished(), now - object_age),
        )

    def _sweep(
        self,
        connection: sa.Connection,
        candidates: _Candidates,
        now: datetime,
        died_before: datetime,
        result: Collected,
    ) -> list[str]:
        """Deletes rows and condemns names; returns all names to be removed, also those of interrupted removals."""
        result.deleted_chunks = chunk_index.drop_unheld(connection, now)
        chunk_index.bury_empty_packs(connection, now)
        dead = sa.delete(t.packs).where(t.packs.c.died_at <= died_before).returning(t.packs.c.pack_id)
        garbage = {packs.pack_key(pack_id) for pack_id in connection.scalars(dead)}
        # What is no pack of ours, such as a note that somebody left there, is not ours to remove.
        pack_ids = [pack_id for name in candidates.packs if (pack_id := packs.pack_id_of(name)) is not None]
        garbage |= {packs.pack_key(pack_id) for pack_id in _unknown(connection, pack_ids, t.packs.c.pack_id)}
        listed = [name for name in candidates.manifests if manifests.is_manifest_key(name)]
        garbage |= _unknown(connection, listed, t.versions.c.manifest_key)
        garbage |= {condemned.name_of_key(key) for key in unused_keys(connection, candidates.keys)}
        # Of managers that were never made to the end.
        keks = _unknown(connection, candidates.keks, t.managers.c.kek_id)
        garbage |= {condemned.name_of_kek(kek) for kek in keks}
        condemned.condemn(connection, sorted(garbage), now)
        condemned.forget(connection, now - _REMEMBERED)
        guesses.forget_guesses(connection, now)
        return condemned.pending(connection)

    def _count(self, doomed: list[str], candidates: _Candidates, result: Collected) -> None:
        for name in doomed:
            if condemned.key_named(name) is not None or condemned.kek_named(name) is not None:
                result.destroyed_keys += 1
                continue
            with suppress(ObjectNotFound, StoreUnavailable):
                result.freed_bytes += self._store.size(name)
                result.deleted_packs += name.startswith("packs/")
                result.deleted_manifests += name.startswith("manifests/")
        result.deleted_temporary_files = len(candidates.temporaries)
        result.freed_bytes += sum(found.size for found in candidates.temporaries.values())

    def _remove(self, doomed: list[str], candidates: _Candidates) -> None:
        for name in candidates.temporaries:
            self._store.discard_unfinished(name)
        self._remover.remove(doomed)
        self._database.forget_deleted()


def unused_keys(connection: sa.Connection, keys: Collection[str]) -> set[str]:
    """Those of the keys that nothing in the index refers to."""
    keys = _unknown(connection, keys, t.versions.c.data_key_id)
    keys = _unknown(connection, keys, t.versions.c.domain_key_id)
    keys = _unknown(connection, keys, t.managers.c.domain_key_id)
    keys = _unknown(connection, keys, ml_tables.payload_keys.c.key_id)
    return _unknown(connection, keys, t.uploads.c.domain_key_id, t.uploads.c.state == "open")


def _made(name: str) -> datetime:
    """When a key was made, by its id; very long ago if that does not tell."""
    try:
        return ULID.from_str(name.rpartition("/")[2]).datetime
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def _older(objects: Iterable[StoredObject], than: datetime) -> dict[str, StoredObject]:
    return {found.key: found for found in objects if found.modified <= than.timestamp()}


def _unknown(
    connection: sa.Connection, names: Collection[N], column: sa.Column[N], *which: sa.ColumnElement[bool]
) -> set[N]:
    """Those of the names that the column does not have, in the rows `which` are asked."""
    known: set[N] = set()
    for batch in t.batches(sorted(names)):
        known.update(connection.scalars(sa.select(column).where(column.in_(batch), *which)))
    return set(names) - known
