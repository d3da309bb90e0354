"""The composition root of the models service."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc

from services.models.aliases import Aliases
from services.models.annotations import Annotations
from services.models.artifact_graph import ArtifactGraph
from services.models.artifact_servicer import ArtifactServicer
from services.models.artifacts import Artifacts
from services.models.catalog_servicer import CatalogServicer
from services.models.collect import Collector
from services.models.commit import Committer
from services.models.file_servicer import FileServicer
from services.models.housekeeper import Housekeeper
from services.models.ingest import ByteBudget
from services.models.key_client import KeyClient
from services.models.lineage import Lineage
from services.models.maintenance_servicer import MaintenanceServicer
from services.models.manager_catalog import ManagerCatalog
from services.models.manager_models import ManagerModels
from services.models.manager_removal import ManagerRemoval
from services.models.manager_saves import ManagerSaves
from services.models.manager_servicer import ManagerServicer
from services.models.managers import DEFAULT_MANAGER, Managers
from services.models.manifest_store import ManifestStore
from services.models.metrics import Metrics
from services.models.model_servicer import ModelServicer
from services.models.path_index import PathIndex
from services.models.reads import Reader
from services.models.receive import FileReceiver, Receiver
from services.models.removal import Remover
from services.models.search import Search
from services.models.settings import ModelsSettings
from services.models.stores.local import LocalStore
from services.models.tables import audit_events
from services.models.uploads import Uploads
from services.models.verify import Verifier
from services.models.versions import Versions
from services.models.weights_servicer import WeightsServicer
from services.shared.accounts import accounts_for
from services.shared.audit.layer import AuditLayers
from services.shared.audit.servicer import AUDIT_LOG_SERVICE, AuditLogServicer
from services.shared.audit.trail import Trail
from services.shared.channels import service_channel
from services.shared.database import Database
from services.shared.ids import new_id
from services.shared.service import Service
from services.shared.tokens import ServiceIdentity
from services.shared.trust import verifier_for
from strongroom.audit.v1 import audit_log_pb2_grpc
from strongroom.models.v1 import (
    artifacts_pb2_grpc,
    catalog_pb2_grpc,
    maintenance_pb2_grpc,
    managers_pb2_grpc,
    models_pb2_grpc,
)

_NAME = "models"
_MIGRATIONS = Path(__file__).parent / "migrations"
_SERVICES = (
    *("ModelService", "WeightsService", "FileService", "MaintenanceService", "ManagerService"),
    *("CatalogService", "ArtifactService"),
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
    store = LocalStore(settings.weights_dir)
    trail = Trail(database, audit_events, identity, settings.data_dir, clock)

    keys = KeyClient(secrets)
    managers = Managers(database, keys, clock)
    remover = Remover(database, store, keys, clock)
    versions = Versions(database, managers, remover.remove, clock)
    manifest_store = ManifestStore(store, versions, managers, keys)
    uploads = Uploads(database, managers, clock)
    receiver = Receiver(database, store, managers, uploads, ByteBudget(), clock)
    committer = Committer(database, store, keys, managers, versions, manifest_store.load, remover.remove, clock)
    reader = Reader(database, store, managers, versions, manifest_store)
    verifying = Verifier(store, managers, versions, manifest_store, reader)
    files = FileReceiver(receiver, uploads, committer)
    catalog = ManagerCatalog(database, managers)
    paths = PathIndex(database, clock)
    removal = ManagerRemoval(database, remover.remove, clock)
    saves = ManagerSaves(catalog, paths, versions, manifest_store, files, reader)
    by_path = ManagerModels(catalog, paths, versions, manifest_store, files, reader, verifying, clock)
    annotations = Annotations(database, managers, new_id)
    aliases = Aliases(database, managers, clock, new_id)
    lineage = Lineage(database, managers, annotations)
    artifacts = ArtifactServicer(Artifacts(database, clock, time.monotonic, new_id), ArtifactGraph(database))
    collector = Collector(database, store, keys, managers, remover, clock)
    housekeeper = Housekeeper(collector, [keys.forget_expired, manifest_store.forget_expired], settings.collect_seconds)

    def register(server: grpc.Server) -> None:
        model_servicer = ModelServicer(versions, manifest_store, verifying, annotations)
        models_pb2_grpc.add_ModelServiceServicer_to_server(model_servicer, server)
        catalog_servicer = CatalogServicer(annotations, aliases, lineage, Search(database, managers, time.monotonic))
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(catalog_servicer, server)
        artifacts_pb2_grpc.add_ArtifactServiceServicer_to_server(artifacts, server)
        WeightsServicer(uploads, receiver, committer, reader).register(server)
        FileServicer(files, reader).register(server)
        manager_servicer = ManagerServicer(catalog, removal, by_path, saves, versions, Metrics(database, managers))
        managers_pb2_grpc.add_ManagerServiceServicer_to_server(manager_servicer, server)
        maintenance_pb2_grpc.add_MaintenanceServiceServicer_to_server(MaintenanceServicer(collector), server)
        audit_log_pb2_grpc.add_AuditLogServiceServicer_to_server(AuditLogServicer(trail), server)

    def start() -> None:
        # First: requests come in while the secrets service is waited for, and a revoked token must not pass meanwhile.
        trust.start()
        trail.start()
        accounts.start()
        managers.ensure(DEFAULT_MANAGER)
        housekeeper.start()

    def close() -> None:
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
    )
