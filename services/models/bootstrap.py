"""The composition root of the models service."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc

from services.models.access_codes import Guesses
from services.models.collect import Collector
from services.models.commit import Committer
from services.models.copy_journal import CopyJournal
from services.models.file_servicer import FileServicer
from services.models.housekeeper import Housekeeper
from services.models.index_identity import IndexIdentity
from services.models.ingest import ByteBudget
from services.models.key_client import KeyClient
from services.models.maintenance_servicer import MaintenanceServicer
from services.models.manager_catalog import ManagerCatalog
from services.models.manager_keys import ManagerKeys
from services.models.manager_models import ManagerModels
from services.models.manager_removal import ManagerRemoval
from services.models.manager_saves import ManagerSaves
from services.models.manager_servicer import ManagerServicer
from services.models.managers import DEFAULT_MANAGER, Managers
from services.models.manifest_store import ManifestStore
from services.models.metrics import Metrics
from services.models.model_servicer import ModelServicer
from services.models.pack_cache import PackCache
from services.models.path_index import PathIndex
from services.models.primary_deletion import PrimaryDeletion
from services.models.reads import Reader
from services.models.rebuild import Rebuilder
from services.models.receive import FileReceiver, Receiver
from services.models.reencrypt import Reencryptor
from services.models.reencryptions import Reencryptions
from services.models.removal import Remover
from services.models.repack import Repacker
from services.models.replication import Member, ReplicatedStore
from services.models.rotation_servicer import RotationServicer
from services.models.rotation_worker import RotationWorker
from services.models.settings import ModelsSettings
from services.models.store_overview import StoreOverview
from services.models.store_servicer import StoreServicer
from services.models.store_states import StoreStates
from services.models.store_watch import StoreWatch
from services.models.stores.configuration import StoresConfiguration
from services.models.stores.opening import open_all
from services.models.synchronize import Synchronizer
from services.models.tables import audit_events
from services.models.uploads import Uploads
from services.models.verify import Verifier
from services.models.version_keys import VersionKeys
from services.models.versions import Versions
from services.models.weights_servicer import WeightsServicer
from services.shared.accounts import accounts_for
from services.shared.audit.layer import AuditLayers
from services.shared.audit.servicer import AUDIT_LOG_SERVICE, AuditLogServicer
from services.shared.audit.trail import Trail
from services.shared.channels import service_channel
from services.shared.database import Database
from services.shared.service import Service
from services.shared.tokens import ServiceIdentity
from services.shared.trust import verifier_for
from strongroom.audit.v1 import audit_log_pb2_grpc
from strongroom.models.v1 import (
    maintenance_pb2_grpc,
    managers_pb2_grpc,
    models_pb2_grpc,
    rotation_pb2_grpc,
    stores_pb2_grpc,
)

_NAME = "models"
_MIGRATIONS = Path(__file__).parent / "migrations"
_SERVICES = (
    *("ModelService", "WeightsService", "FileService", "MaintenanceService", "ManagerService", "RotationService"),
    "StoreService",
)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def build(settings: ModelsSettings, clock: Callable[[], datetime] = _utc_now) -> Service:
    """Wires the service. Nothing is asked of the other services before its `start`."""
    identity = ServiceIdentity.load(_NAME, settings.identity_dir)
    verifier, trust = verifier_for(_NAME, settings, identity)
    database = Database.open(settings.database_url.get_secret_value(), service=_NAME, migrations=_MIGRATIONS)
    accounts = accounts_for(settings.auth_addr, identity, clock)
    secrets = service_channel(settings.secrets_addr, "secrets", identity)
    journal = CopyJournal(database, clock)
    store = _replicated(settings.stores_configuration(), journal)
    trail = Trail(database, audit_events, identity, settings.data_dir, clock)

    keys = KeyClient(secrets)
    managers = Managers(database, keys, clock)
    remover = Remover(database, store, keys, clock)
    versions = Versions(database, managers, remover.remove, clock)
    version_keys = VersionKeys(keys, managers, Guesses(database, clock))
    manifest_store = ManifestStore(store, versions, version_keys)
    uploads = Uploads(database, managers, version_keys, clock)
    receiver = Receiver(database, store, version_keys, uploads, ByteBudget(), clock)
    committer = Committer(database, store, version_keys, managers, versions, manifest_store.load, remover.remove, clock)
    reader = Reader(database, store, version_keys, versions, manifest_store)
    # What is verified is what the stores have.
    stored = Reader(database, store.uncached, version_keys, versions, manifest_store)
    verifying = Verifier(database, store.uncached, version_keys, versions, manifest_store, stored)
    files = FileReceiver(receiver, uploads, committer)
    catalog = ManagerCatalog(database, managers)
    paths = PathIndex(database, clock)
    manager_keys = ManagerKeys(database, keys, managers, clock)
    removal = ManagerRemoval(database, remover.remove, clock)
    saves = ManagerSaves(catalog, paths, versions, manifest_store, files, reader)
    by_path = ManagerModels(catalog, paths, versions, manifest_store, files, reader, verifying, clock)
    identity_of_index = IndexIdentity(database, store.primary.store)
    collector = Collector(
        database, store, keys, remover, identity_of_index, Repacker(database, store, clock).repack, clock
    )
    states = StoreStates(database, clock)
    watches = [_watch(member, store, database, states, journal, settings, clock) for member in store.members]

    def ensure_default() -> None:
        managers.ensure(DEFAULT_MANAGER)

    rebuilder = Rebuilder(database, store, keys, version_keys, identity_of_index, ensure_default, clock)
    overview = StoreOverview(store, states, journal, clock)
    manager_keys = ManagerKeys(database, keys, managers, clock)
    reencryptor = Reencryptor(database, version_keys, versions, manifest_store, reader, receiver, committer, clock)
    rotation_worker = RotationWorker(reencryptor.run, manager_keys.resume)
    reencryptions = Reencryptions(database, keys, managers, remover.remove, rotation_worker.wake, clock)
    forgetful = [keys.forget_expired, version_keys.forget_expired, manifest_store.forget_expired]
    housekeeper = Housekeeper(collector, forgetful, settings.collect_seconds)

    def register(server: grpc.Server) -> None:
        model_servicer = ModelServicer(
            versions, manifest_store, verifying, PrimaryDeletion(database, store, versions, clock)
        )
        models_pb2_grpc.add_ModelServiceServicer_to_server(model_servicer, server)
        WeightsServicer(uploads, receiver, committer, reader, settings.bulk_socket).register(server)
        FileServicer(files, reader).register(server)
        manager_servicer = ManagerServicer(
            catalog, removal, by_path, saves, versions, manager_keys, Metrics(database, managers)
        )
        managers_pb2_grpc.add_ManagerServiceServicer_to_server(manager_servicer, server)
        rotation_servicer = RotationServicer(manager_keys, reencryptions)
        rotation_pb2_grpc.add_RotationServiceServicer_to_server(rotation_servicer, server)
        maintenance_pb2_grpc.add_MaintenanceServiceServicer_to_server(MaintenanceServicer(collector), server)
        stores_servicer = StoreServicer(overview, identity_of_index, rebuilder)
        stores_pb2_grpc.add_StoreServiceServicer_to_server(stores_servicer, server)
        audit_log_pb2_grpc.add_AuditLogServiceServicer_to_server(AuditLogServicer(trail), server)

    def start() -> None:
        # First: requests come in while the secrets service is waited for, and a revoked token must not pass meanwhile.
        trust.start()
        trail.start()
        accounts.start()
        identity_of_index.ensure()
        # An index that lost its managers must not get new secrets in place of those that opened the weights.
        if not identity_of_index.problem():
            ensure_default()
        housekeeper.start()
        rotation_worker.start()
        for watch in watches:
            watch.start()

    def close() -> None:
        for watch in watches:
            watch.close()
        rotation_worker.close()
        housekeeper.close()
        accounts.close()
        trust.close()
        secrets.close()
        trail.close()
        database.close()

    return Service(
        name=_NAME,
        services=[*(f"strongroom.models.v1.{name}" for name in _SERVICES), AUDIT_LOG_SERVICE],
        register=register,
        verifier=verifier,
        start=start,
        ready=database.check,
        close=close,
        audit=AuditLayers(trail),
        accounts=accounts,
        # A commit lists every chunk of a version: 64 MiB are a good terabyte of weights.
        max_request_bytes=64 << 20,
        socket=settings.bulk_socket,
    )


def _replicated(configured: StoresConfiguration, journal: CopyJournal) -> ReplicatedStore:
    members = [Member(name, configured.stores[name].kind, store) for name, store in open_all(configured).items()]
    if configured.cache is None:
        return ReplicatedStore(members, journal)
    cache = PackCache(configured.cache.path, int(configured.cache.max_size_gb * 1e9))
    return ReplicatedStore(members, journal, cache)


def _watch(
    member: Member,
    store: ReplicatedStore,
    database: Database,
    states: StoreStates,
    journal: CopyJournal,
    settings: ModelsSettings,
    clock: Callable[[], datetime],
) -> StoreWatch:
    synchronizer = Synchronizer(member, store, database, journal, clock)
    alone = not store.replicas
    return StoreWatch(synchronizer, states, journal, clock, settings.sync_seconds, alone=alone)
