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

from services.models import chunk_index, condemned, manager_restoring, manifests, packs, versions
from services.models import tables as t
from services.models.access_codes import AccessCode, AccessCodeRefused
from services.models.blob_places import BlobPlaces
from services.models.collect import OBJECT_AGE, unused_keys
from services.models.guesses import AccessCodeThrottled
from services.models.index_identity import IndexIdentity
from services.models.key_client import KeyClient
from services.models.manifests import ChunkRef, Manifest, ManifestHeader
from services.models.packs import PackIndex
from services.models.public_keys import is_public, public_key
from services.models.replication import ReplicatedStore
from services.models.stores.store import ObjectNotFound, StoreUnavailable
from services.models.version_keys import VersionKeys
from services.models.versions import Version
from services.shared.database import Database
from services.shared.errors import DataLoss, DomainError

_PACK = re.compile(r"packs/[0-9a-f]{2}/([0-9a-f]{32})")
_MOST_PROBLEMS = 100
# Neither manifests nor indexes of packs say this: it stands in the database alone.
NOT_RESTORED = (
    "who pushed a version",
    "metrics",
    "tags",
    "aliases",
    "lineage and artifacts",
    "logical paths",
    "settings of managers",
    "configs, jobs and predictions",
)

_log = structlog.get_logger()


@dataclass(frozen=True)
class RebuildOptions:
    """What a rebuild shall do: read one `store` alone; only say what it would; trust the index whatever it lacks;
    believe manifests under public keys, which whoever can write to a store can write."""

    store: str = ""
    dry_run: bool = False
    accept_losses: bool = False
    include_unencrypted: bool = False


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
    not_restored: tuple[str, ...] = NOT_RESTORED

    def complain(self, problem: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)


class _Unusable(DomainError):
    """A version that can't be added; the message says why."""


_REFUSALS = (
    *(_Unusable, DataLoss, ObjectNotFound),
    *(condemned.Condemned, manager_restoring.ManagerDiffers, AccessCodeRefused, AccessCodeThrottled),
)


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
        version_keys: VersionKeys,
        identity: IndexIdentity,
        finished: Callable[[], object],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._stores = stores
        self._keys = keys
        self._version_keys = version_keys
        self._identity = identity
        self._finished = finished
        self._clock = clock

    def rebuild(self, options: RebuildOptions, access_code: AccessCode | None = None) -> Rebuilt:
        """Adds to the index what the stores hold and it lacks, also what the access code opens.

        Each version is added in a transaction of its own, so an interrupted rebuild is simply run again. Raises
        StoreUnknown, KeyServiceUnavailable.
        """
        opener = _Opener(self._version_keys, access_code, options)
        source = self._stores.only(options.store) if options.store else self._stores
        result = Rebuilt()
        with BlobPlaces() as places:
            self._index_packs(source, places, result)
            # Ids of versions begin with their time: the newest is added last, and so is the latest of its model.
            for key in sorted(self._listed(source, "manifests/", result)):
                try:
                    self._add(opener, source, key, places, result)
                except _REFUSALS as error:
                    result.complain(f"{key}: {error.message}")
        if not options.dry_run:
            self._look_for_hidden(result)
        if not options.dry_run and (options.accept_losses or not result.problems):
            self._identity.take_over()
            self._finished()
        result.trusted = not self._identity.problem()
        _log.warning(
            "the index was rebuilt", dry_run=options.dry_run, **vars(result) | {"problems": len(result.problems)}
        )
        return result

    def _look_for_hidden(self, result: Rebuilt) -> None:
        """A store that leaves manifests out of its list must not have the next collection destroy their keys."""
        keys = set(self._keys.list(int(OBJECT_AGE.total_seconds())))
        with self._database.read() as connection:
            unused = len(unused_keys(connection, keys))
        if unused:
            result.complain(
                f"{unused} keys belong to nothing that was found: a store may lack or hide manifests. Once the index "
                "is trusted, these keys are destroyed."
            )

    def _listed(self, source: ReplicatedStore, folder: str, result: Rebuilt) -> dict[str, int]:
        """Objects and their sizes. A store that does not answer is a problem: it may have what the others lack."""
        found: dict[str, int] = {}
        for member in source.members:
            try:
                found.update((listed.key, listed.size) for listed in member.store.list(folder))
            except StoreUnavailable as error:
                result.complain(f"{member.name}: {error.message}")
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

    def _add(self, opener: "_Opener", source: ReplicatedStore, key: str, places: BlobPlaces, result: Rebuilt) -> None:
        with self._database.read() as connection:
            known = sa.select(t.versions.c.id).where(t.versions.c.manifest_key == key)
            if connection.execute(known).first() is not None:
                result.versions_known += 1
                return
            if condemned.is_condemned(connection, key):
                return
        data = source.read(key, 0, manifests.MAX_MANIFEST + 1)
        manifest = opener.open(key, data)
        blobs = {chunk.blob_id for chunk in _chunks(manifest)}
        found = places.find(blobs)
        if len(found) < len(blobs):
            raise _Unusable(f"{len(blobs) - len(found)} of {len(blobs)} chunks of {_name(manifest)} are in no pack.")
        if not opener.options.dry_run:
            kek_id = self._version_keys.kek_id(_holder(manifest))
            sizes = {pack_id: source.size(packs.pack_key(pack_id)) for pack_id, _, _ in found.values()}
            with self._database.write() as connection:
                t.hold_references(connection)
                result.managers_added += manager_restoring.restore(
                    connection, _holder(manifest), kek_id, self._keys, self._clock()
                )
                self._insert(connection, manifest, manifests.manifest_digest(data), found, sizes)
        result.versions_added += 1

    def _insert(
        self,
        connection: sa.Connection,
        manifest: Manifest,
        digest: bytes,
        places: dict[bytes, tuple[bytes, int, int]],
        sizes: dict[bytes, int],
    ) -> None:
        names = [packs.pack_key(pack_id) for pack_id in sizes]
        own = [manifests.manifest_key(manifest.version_id)]
        own += [condemned.name_of_key(key) for key in (manifest.data_key_id, manifest.domain_key_id)]
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


@dataclass(frozen=True)
class _Opener:
    """Opens manifests, and says which it does not believe."""

    keys: VersionKeys
    access_code: AccessCode | None
    options: RebuildOptions

    def open(self, key: str, data: bytes) -> Manifest:
        """The manifest, authentic and under its own name."""
        header = manifests.header(data)
        if key != manifests.manifest_key(header.version_id):
            raise _Unusable("This manifest stands under another's name.")
        return manifests.decode(data, self._data_key(header), manifests.manifest_digest(data))

    def _data_key(self, header: ManifestHeader) -> bytes:
        public = is_public(header.data_key_id)
        if public != is_public(header.domain_key_id):
            raise _Unusable("This manifest names a public key and a secret one.")
        if not public:
            return self.keys.data_key(_holder(header), self.access_code)
        if not self.options.include_unencrypted:
            raise _Unusable("Not encrypted, so whoever writes to a store may have made it. See include_unencrypted.")
        return public_key(header.data_key_id)


@dataclass(frozen=True)
class _Holder:
    """A version before it has a row (`version_keys.HasKeys`)."""

    manager_id: str
    uid: str
    data_key_id: str
    domain_key_id: str


def _holder(found: Manifest | ManifestHeader) -> _Holder:
    return _Holder(found.manager_id, found.version_id, found.data_key_id, found.domain_key_id)


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
        "codec": chunk.codec,
    }


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
        domain_key_id=manifest.domain_key_id,
        manifest_key=manifests.manifest_key(manifest.version_id),
        manifest_digest=digest,
        sha256_verified=False,
    )


def _chunks(manifest: Manifest) -> Iterator[ChunkRef]:
    return (chunk for file in manifest.files for chunk in file.chunks)


def _name(manifest: Manifest) -> str:
    return f"{manifest.manager_id}/{manifest.model_name}@{manifest.version}"
