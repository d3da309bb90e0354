"""What the models service is made of, wired: what everything stands on, the way of weights, and what runs by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from services.models.collect import Collector
from services.models.commit import Committer
from services.models.copy_journal import CopyJournal
from services.models.guesses import Guesses
from services.models.housekeeper import Housekeeper
from services.models.index_identity import IndexIdentity
from services.models.ingest import ByteBudget
from services.models.key_client import KeyClient
from services.models.manager_keys import ManagerKeys
from services.models.managers import DEFAULT_MANAGER, Managers
from services.models.manifest_store import ManifestStore
from services.models.pack_cache import PackCache
from services.models.reads import Reader
from services.models.receive import FileReceiver, Receiver
from services.models.reencrypt import Reencryptor
from services.models.reencryptions import Reencryptions
from services.models.removal import Remover
from services.models.repack import Repacker
from services.models.replication import Member, ReplicatedStore
from services.models.rotation_worker import RotationWorker
from services.models.settings import ModelsSettings
from services.models.store_states import StoreStates
from services.models.store_watch import StoreWatch
from services.models.stores.opening import open_all
from services.models.synchronize import Synchronizer
from services.models.uploads import Uploads
from services.models.verify import Verifier
from services.models.version_keys import VersionKeys
from services.models.versions import Versions
from services.shared.database import Database

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Core:
    """What everything else stands on: rows, objects and keys."""

    database: Database
    clock: Clock
    journal: CopyJournal
    store: ReplicatedStore
    keys: KeyClient
    managers: Managers
    remover: Remover
    versions: Versions
    version_keys: VersionKeys
    manifests: ManifestStore

    @classmethod
    def of(cls, settings: ModelsSettings, database: Database, keys: KeyClient, clock: Clock) -> Self:
        configured = settings.stores_configuration()
        members = [Member(name, configured.stores[name].kind, store) for name, store in open_all(configured).items()]
        journal = CopyJournal(database, clock)
        cached = configured.cache
        cache = None if cached is None else PackCache(cached.path, int(cached.max_size_gb * 1e9))
        store = ReplicatedStore(members, journal, cache)
        managers = Managers(database, keys, clock)
        remover = Remover(database, store, keys, clock)
        versions = Versions(database, managers, remover.remove, clock)
        version_keys = VersionKeys(keys, managers, Guesses(database, clock))
        manifests = ManifestStore(store, versions, version_keys)
        return cls(
            database,
            clock,
            journal,
            store,
            keys,
            managers,
            remover,
            versions,
            version_keys=version_keys,
            manifests=manifests,
        )


@dataclass(frozen=True)
class Weights:
    """The way of weights into the stores and out of them."""

    uploads: Uploads
    receiver: Receiver
    committer: Committer
    files: FileReceiver
    reader: Reader
    verifier: Verifier

    @classmethod
    def of(cls, core: Core) -> Self:
        database, store, version_keys, clock = core.database, core.store, core.version_keys, core.clock
        uploads = Uploads(database, core.managers, version_keys, clock)
        receiver = Receiver(database, store, version_keys, uploads, ByteBudget(), clock)
        committer = Committer(
            database,
            store,
            version_keys,
            core.managers,
            core.versions,
            core.manifests.load,
            core.remover.remove,
            clock,
        )
        reader = Reader(database, store, version_keys, core.versions, core.manifests)
        # What is verified is what the stores have.
        stored = Reader(database, store.uncached, version_keys, core.versions, core.manifests)
        verifier = Verifier(database, store.uncached, version_keys, core.versions, core.manifests, stored)
        return cls(uploads, receiver, committer, FileReceiver(receiver, uploads, committer), reader, verifier)


class _Runs(Protocol):
    def start(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Jobs:
    """What runs by itself, in threads of its own, and what servicers ask of it."""

    managers: Managers
    index: IndexIdentity
    collector: Collector
    manager_keys: ManagerKeys
    reencryptions: Reencryptions
    states: StoreStates
    threads: tuple[_Runs, ...]

    @classmethod
    def of(cls, core: Core, weights: Weights, settings: ModelsSettings) -> Self:
        database, store, keys, clock = core.database, core.store, core.keys, core.clock
        index = IndexIdentity(database, store.primary.store)
        repack = Repacker(database, store, clock).repack
        collector = Collector(database, store, keys, core.remover, index, repack, clock)
        forgetful = [keys.forget_expired, core.version_keys.forget_expired, core.manifests.forget_expired]
        manager_keys = ManagerKeys(database, keys, core.managers, clock)
        reencryptor = Reencryptor(
            database,
            core.version_keys,
            core.versions,
            core.manifests,
            weights.reader,
            weights.receiver,
            weights.committer,
            clock,
        )
        rotations = RotationWorker(reencryptor.run, manager_keys.resume)
        reencryptions = Reencryptions(database, keys, core.managers, core.remover.remove, rotations.wake, clock)
        states = StoreStates(database, clock)
        housekeeper = Housekeeper(collector, forgetful, settings.collect_seconds)
        watches = (_watch(member, core, states, settings.sync_seconds) for member in store.members)
        threads: tuple[_Runs, ...] = (housekeeper, rotations, *watches)
        return cls(core.managers, index, collector, manager_keys, reencryptions, states, threads)

    def start(self) -> None:
        """Starts what runs by itself, and makes the default manager. Raises KeyServiceUnavailable; may be repeated."""
        self.index.ensure()
        # An index that lost its managers must not get new secrets in place of those that opened the weights.
        if not self.index.problem():
            self.ensure_default()
        for thread in self.threads:
            thread.start()

    def ensure_default(self) -> None:
        self.managers.ensure(DEFAULT_MANAGER)

    def close(self) -> None:
        for thread in reversed(self.threads):
            thread.close()


def _watch(member: Member, core: Core, states: StoreStates, seconds: float) -> StoreWatch:
    synchronizer = Synchronizer(member, core.store, core.database, core.journal, core.clock)
    return StoreWatch(synchronizer, states, core.journal, core.clock, seconds, alone=not core.store.replicas)
