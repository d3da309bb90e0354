"""The index made anew from the stores: versions from manifests, places of chunks from the indexes of packs.

Nothing is believed that is not authentic: a manifest opens only under its version's data key, which the secrets service
kept and which is bound to manager and version. What was deleted has no key any more, so it does not come back.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
import structlog
from ulid import ULID

from services.models import chunk_index, condemned, manifests, packs, versions
from services.models import tables as t
from services.models.blob_places import BlobPlaces
from services.models.index_identity import IndexIdentity
from services.models.key_client import KeyClient
from services.models.managers import Manager
from services.models.manifests import ChunkRef, Manifest
from services.models.packs import PackIndex
from services.models.replication import ReplicatedStore, failure_text
from services.models.stores.store import ObjectNotFound, StoreUnavailable
from services.models.versions import Version
from services.shared.database import Database
from services.shared.errors import DataLoss, DomainError

_PACK = re.compile(r"packs/[0-9a-f]{2}/([0-9a-f]{32})")
_MOST_PROBLEMS = 100

_log = structlog.get_logger()


@dataclass
class Rebuilt:
    """What a rebuild found; sizes in bytes. `problems` are at most 100 lines."""

    versions_added: int = 0
    versions_known: int = 0
    managers_added: int = 0
    packs_found: int = 0
    bytes_found: int = 0
    problems: list[str] = field(default_factory=list)
    trusted: bool = False

    def complain(self, problem: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)


class _Unusable(DomainError):
    """A version that can't be added; the message says why."""


class Rebuilder:
    """Rebuilds the index.

    Args:
        finished: called when the index is trusted again.
    """

    def __init__(
        self,
        database: Database,
        stores: ReplicatedStore,
        keys: KeyClient,
        identity: IndexIdentity,
        finished: Callable[[], object],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._stores = stores
        self._keys = keys
        self._identity = identity
        self._finished = finished
        self._clock = clock

    def rebuild(self, store: str = "", *, dry_run: bool = False, accept_losses: bool = False) -> Rebuilt:
        """Adds to the index what the stores hold and it lacks; of one store alone if it is named.

        Each version is added in a transaction of its own, so an interrupted rebuild is simply run again. Raises
        StoreUnknown, KeyServiceUnavailable.
        """
        source = self._stores.only(store) if store else self._stores
        result = Rebuilt()
        with BlobPlaces() as places:
            self._index_packs(source, places, result)
            # Ids of versions begin with their time: the newest is added last, and so is the latest of its model.
            for key in sorted(self._listed(source, "manifests/", result)):
                try:
                    self._add(source, key, places, result, dry_run=dry_run)
                except (_Unusable, DataLoss, ObjectNotFound, condemned.Condemned) as error:
                    result.complain(f"{key}: {error.message}")
        if not dry_run and (accept_losses or not result.problems):
            self._identity.take_over()
            self._finished()
        result.trusted = not self._identity.problem()
        _log.warning("the index was rebuilt", dry_run=dry_run, **vars(result) | {"problems": len(result.problems)})
        return result

    def _listed(self, source: ReplicatedStore, folder: str, result: Rebuilt) -> dict[str, int]:
        """Objects and their sizes. A store that does not answer is a problem: it may have what the others lack."""
        found: dict[str, int] = {}
        for member in source.members:
            try:
                found.update((listed.key, listed.size) for listed in member.store.list(folder))
            except (StoreUnavailable, OSError) as error:
                result.complain(f"{member.name}: {failure_text(error)}")
        return found

    def _index_packs(self, source: ReplicatedStore, places: BlobPlaces, result: Rebuilt) -> None:
        for key, size in self._listed(source, "packs/", result).items():
            if named := _PACK.fullmatch(key):
                pack_id = bytes.fromhex(named[1])
                try:
                    places.add(_pack_index(source, pack_id))
                except (DataLoss, StoreUnavailable) as error:
                    # Only a problem if a version needs it; then that is told.
                    _log.warning("a pack is left out", object=key, reason=error.error_reason)
                    continue
                result.packs_found += 1
                result.bytes_found += size

    def _add(self, source: ReplicatedStore, key: str, places: BlobPlaces, result: Rebuilt, *, dry_run: bool) -> None:
        with self._database.read() as connection:
            known = sa.select(t.versions.c.id).where(t.versions.c.manifest_key == key)
            if connection.execute(known).first() is not None:
                result.versions_known += 1
                return
            if condemned.is_condemned(connection, key):
                return
        data = source.read(key, 0, manifests.MAX_MANIFEST + 1)
        manifest = self._opened(key, data)
        blobs = {chunk.blob_id for chunk in _chunks(manifest)}
        found = places.find(blobs)
        if len(found) < len(blobs):
            raise _Unusable(f"{len(blobs) - len(found)} of {len(blobs)} chunks of {_name(manifest)} are in no pack.")
        if not dry_run:
            sizes = {pack_id: source.size(packs.pack_key(pack_id)) for pack_id, _, _ in found.values()}
            with self._database.write() as connection:
                t.hold_references(connection)
                result.managers_added += _add_manager(connection, manifest, self._clock())
                self._insert(connection, manifest, manifests.manifest_digest(data), found, sizes)
        result.versions_added += 1

    def _opened(self, key: str, data: bytes) -> Manifest:
        """The manifest, authentic and under its own name."""
        header = manifests.header(data)
        if key != manifests.manifest_key(header.version_id):
            raise _Unusable("This manifest stands under another's name.")
        context = _manager(header.manager_id, header.domain_key_id).data_key_context(header.version_id)
        data_key = self._keys.unwrap(header.data_key_id, context)
        return manifests.decode(data, data_key, manifests.manifest_digest(data))

    def _insert(
        self,
        connection: sa.Connection,
        manifest: Manifest,
        digest: bytes,
        places: dict[bytes, tuple[bytes, int, int]],
        sizes: dict[bytes, int],
    ) -> None:
        names = [packs.pack_key(pack_id) for pack_id in sizes]
        own = [manifests.manifest_key(manifest.version_id), condemned.name_of_key(manifest.data_key_id)]
        for batch in t.batches([*own, *names]):
            condemned.refuse_condemned(connection, batch)
        numbers = _add_packs(connection, sizes, self._clock())
        chunks = {chunk.chunk_id: chunk for chunk in _chunks(manifest)}
        rows = [
            _chunk_row(manifest.manager_id, chunk, numbers, places[chunk.blob_id])
            for _, chunk in sorted(chunks.items())
        ]
        t.insert_missing(connection, t.chunks, rows)
        stored = chunk_index.find(connection, manifest.manager_id, chunks)
        if any(stored[chunk_id].blob_id != chunk.blob_id for chunk_id, chunk in chunks.items()):
            raise _Unusable(f"{_name(manifest)} has chunks that others have under another key.")
        if versions.exists(connection, manifest.manager_id, manifest.model_name, manifest.version):
            raise _Unusable(f"There is another version {_name(manifest)} in the index.")
        versions.insert(connection, _version(manifest, digest), [row.id for row in stored.values()])


def _pack_index(source: ReplicatedStore, pack_id: bytes) -> PackIndex:
    return source.sound(packs.pack_key(pack_id), lambda copy: packs.read_index(copy, pack_id))


def _add_manager(connection: sa.Connection, manifest: Manifest, now: datetime) -> bool:
    """The manager as far as manifests tell of it. True if it was not there."""
    manager = _manager(manifest.manager_id, manifest.domain_key_id)
    condemned.refuse_condemned(connection, [condemned.name_of_key(manager.domain_key_id)])
    row = connection.execute(
        sa.select(t.managers.c.domain_key_id).where(t.managers.c.id == manager.id).with_for_update()
    ).one_or_none()
    if row is None:
        connection.execute(sa.insert(t.managers).values(**vars(manager), created_at=now))
        return True
    if row.domain_key_id != manager.domain_key_id:
        if connection.execute(sa.select(t.chunks.c.id).where(t.chunks.c.manager_id == manager.id).limit(1)).first():
            raise _Unusable(f"Manager {manager.id} has chunks under another secret than {_name(manifest)}.")
        # Made anew after the loss, and not used yet: the weights need the secret that encrypted them.
        mine = t.managers.c.id == manager.id
        connection.execute(sa.update(t.managers).where(mine).values(domain_key_id=manager.domain_key_id))
    return False


def _add_packs(connection: sa.Connection, sizes: dict[bytes, int], now: datetime) -> dict[bytes, int]:
    """Rows of these packs, which are alive again if they were not; by pack id."""
    rows = [{"pack_id": pack_id, "size": size, "created_at": now} for pack_id, size in sorted(sizes.items())]
    t.insert_missing(connection, t.packs, rows)
    numbers: dict[bytes, int] = {}
    for batch in t.batches(list(sizes)):
        these = t.packs.c.pack_id.in_(batch)
        connection.execute(sa.update(t.packs).where(these).values(died_at=None))
        listed = connection.execute(sa.select(t.packs.c.pack_id, t.packs.c.id).where(these))
        numbers.update((row.pack_id, row.id) for row in listed)
    return numbers


def _chunk_row(
    manager_id: str, chunk: ChunkRef, numbers: dict[bytes, int], place: tuple[bytes, int, int]
) -> dict[str, object]:
    pack_id, offset, stored_length = place
    return {
        "manager_id": manager_id,
        "chunk_id": chunk.chunk_id,
        "blob_id": chunk.blob_id,
        "salt": chunk.salt,
        "pack": numbers[pack_id],
        "offset": offset,
        "stored_length": stored_length,
        "plain_length": chunk.length,
        "ciphertext_digest": chunk.ciphertext_digest,
    }


def _manager(manager_id: str, domain_key_id: str) -> Manager:
    return Manager(manager_id, f"managers/{manager_id}", domain_key_id)


def _version(manifest: Manifest, digest: bytes) -> Version:
    return Version(
        id=0,
        uid=manifest.version_id,
        manager_id=manifest.manager_id,
        model_name=manifest.model_name,
        name=manifest.version,
        size=sum(file.size for file in manifest.files),
        files_count=len(manifest.files),
        created_at=ULID.from_str(manifest.version_id).datetime,
        # Who it was stood in the lost database alone; the audit log may tell.
        created_by="unknown",
        data_key_id=manifest.data_key_id,
        manifest_key=manifests.manifest_key(manifest.version_id),
        manifest_digest=digest,
        sha256_verified=False,
    )


def _chunks(manifest: Manifest) -> Iterator[ChunkRef]:
    return (chunk for file in manifest.files for chunk in file.chunks)


def _name(manifest: Manifest) -> str:
    return f"{manifest.manager_id}/{manifest.model_name}@{manifest.version}"
