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
from services.models.config_servicer import ConfigServicer
from services.models.file_servicer import FileServicer
from services.models.job_servicer import JobServicer
from services.models.key_client import KeyClient
from services.models.lineage import Lineage
from services.models.maintenance_servicer import MaintenanceServicer
from services.models.manager_catalog import ManagerCatalog
from services.models.manager_models import ManagerModels
from services.models.manager_removal import ManagerRemoval
from services.models.manager_saves import ManagerSaves
from services.models.manager_servicer import ManagerServicer
from services.models.metrics import Metrics
from services.models.ml_artifact_servicer import MlArtifactServicer
from services.models.ml_parts import Training
from services.models.ml_servicer import MlServicer
from services.models.model_servicer import ModelServicer
from services.models.parts import Clock, Core, Jobs, Weights
from services.models.path_index import PathIndex
from services.models.primary_deletion import PrimaryDeletion
from services.models.rebuild import Rebuilder
from services.models.rotation_servicer import RotationServicer
from services.models.search import Search
from services.models.settings import ModelsSettings
from services.models.store_overview import StoreOverview
from services.models.store_servicer import StoreServicer
from services.models.system_servicer import SystemServicer
from services.models.tables import audit_events
from services.models.weights_servicer import WeightsServicer
from services.shared.accounts import accounts_for
from services.shared.audit.layer import AuditLayers
from services.shared.audit.servicer import AUDIT_LOG_SERVICE, AuditLogServicer
from services.shared.audit.trail import Trail
from services.shared.channels import service_channel
from services.shared.database import Database
from services.shared.ids import new_id
from services.shared.private_socket import PrivateSocket
from services.shared.service import Service
from services.shared.tokens import ServiceIdentity
from services.shared.trust import verifier_for
from strongroom.audit.v1 import audit_log_pb2_grpc
from strongroom.models.v1 import (
    artifacts_pb2_grpc,
    catalog_pb2_grpc,
    configs_pb2_grpc,
    jobs_pb2_grpc,
    maintenance_pb2_grpc,
    managers_pb2_grpc,
    ml_artifacts_pb2_grpc,
    ml_pb2_grpc,
    models_pb2_grpc,
    rotation_pb2_grpc,
    stores_pb2_grpc,
    system_pb2_grpc,
)

_NAME = "models"
_MIGRATIONS = Path(__file__).parent / "migrations"
_SERVICES = (
    *("ModelService", "WeightsService", "FileService", "MaintenanceService", "ManagerService", "RotationService"),
    *("CatalogService", "ArtifactService", "StoreService"),
    *("ConfigService", "MlService", "JobService", "MlArtifactService", "SystemService"),
)
# What passes the gateway by: streams that cost it much.
_BULK = frozenset(f"/strongroom.models.v1.WeightsService/{name}" for name in ("WriteChunks", "ReadFile"))


def _utc_now() -> datetime:
    return datetime.now(UTC)


def build(settings: ModelsSettings, clock: Clock = _utc_now) -> Service:
    """Wires the service. Nothing is asked of the other services before its `start`."""
    identity = ServiceIdentity.load(_NAME, settings.identity_dir, settings.pki_dir)
    verifier, trust = verifier_for(_NAME, settings, identity)
    database = Database.open(settings.database_url.get_secret_value(), service=_NAME, migrations=_MIGRATIONS)
    accounts = accounts_for(settings.auth_addr, identity, clock)
    secrets = service_channel(settings.secrets_addr, "secrets", identity)
    trail = Trail(database, audit_events, identity, settings.data_dir, clock)
    core = Core.of(settings, database, KeyClient(secrets), clock)
    weights = Weights.of(core)
    jobs = Jobs.of(core, weights, settings)
    training = Training.of(core, weights, settings, accounts.meter, trust.revoked_since)
    bulk_socket = PrivateSocket(settings.bulk_socket, _BULK) if settings.bulk_socket else None

    def register(server: grpc.Server) -> None:
        _weights(core, weights, bulk_socket)(server)
        _managers(core, weights, jobs)(server)
        _operations(core, jobs)(server)
        _training(training, clock)(server)
        audit_log_pb2_grpc.add_AuditLogServiceServicer_to_server(AuditLogServicer(trail), server)

    def start() -> None:
        # First: requests come in while the secrets service is waited for, and a revoked token must not pass meanwhile.
        trust.start()
        trail.start()
        accounts.start()
        jobs.start()
        training.start()

    def close() -> None:
        training.close()
        jobs.close()
        accounts.close()
        trust.close()
        secrets.close()
        trail.close()
        database.close()

    return Service(
        name=_NAME,
        services=[*(f"strongroom.models.v1.{name}" for name in _SERVICES), AUDIT_LOG_SERVICE],
        register=register,
        certificates=identity.certificates,
        verifier=verifier,
        start=start,
        ready=database.check,
        close=close,
        audit=AuditLayers(trail),
        accounts=accounts,
        # A commit lists every chunk of a version: 64 MiB are a good terabyte of weights.
        max_request_bytes=64 << 20,
        socket=bulk_socket,
        readings=StoreOverview(core.store, jobs.states, core.journal, clock).readings,
    )


_Registration = Callable[[grpc.Server], None]


def _weights(core: Core, weights: Weights, bulk_socket: PrivateSocket | None) -> _Registration:
    """Versions and their files, and what is said about them."""
    annotations = Annotations(core.database, core.managers, new_id)
    aliases = Aliases(core.database, core.managers, core.clock, new_id)
    lineage = Lineage(core.database, core.managers, annotations)
    catalog = CatalogServicer(annotations, aliases, lineage, Search(core.database, core.managers, time.monotonic))
    artifacts = ArtifactServicer(
        Artifacts(core.database, core.clock, time.monotonic, new_id), ArtifactGraph(core.database)
    )
    in_primary = PrimaryDeletion(core.database, core.store, core.versions, core.clock)
    model_servicer = ModelServicer(core.versions, core.manifests, weights.verifier, annotations, in_primary)
    bulk = WeightsServicer(weights.uploads, weights.receiver, weights.committer, weights.reader, bulk_socket)

    def register(server: grpc.Server) -> None:
        models_pb2_grpc.add_ModelServiceServicer_to_server(model_servicer, server)
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server)
        artifacts_pb2_grpc.add_ArtifactServiceServicer_to_server(artifacts, server)
        bulk.register(server)
        FileServicer(weights.files, weights.reader).register(server)

    return register


def _managers(core: Core, weights: Weights, jobs: Jobs) -> _Registration:
    """Managers, models by path, and keys."""
    catalog, paths = ManagerCatalog(core.database, core.managers), PathIndex(core.database, core.clock)
    way = core.versions, core.manifests, weights.files, weights.reader
    managers = ManagerServicer(
        catalog,
        ManagerRemoval(core.database, core.remover.remove, core.clock),
        ManagerModels(catalog, paths, *way, weights.verifier, core.clock),
        ManagerSaves(catalog, paths, *way),
        core.versions,
        jobs.manager_keys,
        Metrics(core.database, core.managers),
    )
    rotation = RotationServicer(jobs.manager_keys, jobs.reencryptions)

    def register(server: grpc.Server) -> None:
        managers_pb2_grpc.add_ManagerServiceServicer_to_server(managers, server)
        rotation_pb2_grpc.add_RotationServiceServicer_to_server(rotation, server)

    return register


def _operations(core: Core, jobs: Jobs) -> _Registration:
    """Stores and garbage."""
    rebuilder = Rebuilder(
        core.database, core.store, core.keys, core.version_keys, jobs.index, jobs.ensure_default, core.clock
    )
    overview = StoreOverview(core.store, jobs.states, core.journal, core.clock)

    def register(server: grpc.Server) -> None:
        maintenance_pb2_grpc.add_MaintenanceServiceServicer_to_server(MaintenanceServicer(jobs.collector), server)
        stores_pb2_grpc.add_StoreServiceServicer_to_server(StoreServicer(overview, jobs.index, rebuilder), server)

    return register


def _training(training: Training, clock: Clock) -> _Registration:
    """Configs, jobs and what they make."""

    def register(server: grpc.Server) -> None:
        configs_pb2_grpc.add_ConfigServiceServicer_to_server(ConfigServicer(training.configs, training.runners), server)
        ml_pb2_grpc.add_MlServiceServicer_to_server(MlServicer(training.submissions), server)
        jobs_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(training.queue, training.follower), server)
        ml_artifacts_pb2_grpc.add_MlArtifactServiceServicer_to_server(MlArtifactServicer(training.artifacts), server)
        system_pb2_grpc.add_SystemServiceServicer_to_server(SystemServicer(clock), server)

    return register
