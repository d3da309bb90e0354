"""The composition root of the secrets service."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import grpc

from services.secrets.parts import Clock, Keys, Secrets
from services.secrets.root_keys.root_key import RootKeyUnavailable
from services.secrets.rotation.parts import RotationParts
from services.secrets.rotation.servicer import SecretRotationServicer
from services.secrets.settings import SecretsSettings
from services.secrets.tables import audit_events
from services.shared.accounts import accounts_for
from services.shared.audit.layer import AuditLayers
from services.shared.audit.servicer import AUDIT_LOG_SERVICE, AuditLogServicer
from services.shared.audit.trail import Trail
from services.shared.database import Database
from services.shared.service import Service
from services.shared.tokens import ServiceIdentity
from services.shared.trust import verifier_for
from strongroom.audit.v1 import audit_log_pb2_grpc
from strongroom.secrets.v1 import (
    keys_pb2_grpc,
    providers_pb2_grpc,
    root_key_pb2_grpc,
    rotations_pb2_grpc,
    secrets_pb2_grpc,
)

_NAME = "secrets"
_MIGRATIONS = Path(__file__).parent / "migrations"
_SERVICES = ("SecretService", "ProviderService", "SecretRotationService", "KeyService", "RootKeyService")


def _utc_now() -> datetime:
    return datetime.now(UTC)


def build(settings: SecretsSettings, clock: Clock = _utc_now) -> Service:
    """Wires the service. Raises RootKeyError or ConfigurationError, which say what to do, before anything is served."""
    identity = ServiceIdentity.load(_NAME, settings.identity_dir, settings.pki_dir)
    database = Database.open(settings.database_url.get_secret_value(), service=_NAME, migrations=_MIGRATIONS)
    keys = Keys.of(settings, database, clock)
    secrets = Secrets.of(settings, database, keys.keyring, clock)

    def prepare() -> None:
        keys.generations.open()
        secrets.vault.prepare()

    # A root key that is elsewhere may not answer yet: that is waited for. What is wrong with it is told at once.
    with suppress(RootKeyUnavailable):
        prepare()
    trail = Trail(database, audit_events, identity, settings.data_dir, clock)
    accounts = accounts_for(settings.auth_addr, identity, clock)
    rotation = RotationParts.of(settings, database, secrets.vault, trail, clock)
    verifier, trust = verifier_for(_NAME, settings, identity)

    def register(server: grpc.Server) -> None:
        _register(keys, secrets, rotation, server)
        audit_log_pb2_grpc.add_AuditLogServiceServicer_to_server(AuditLogServicer(trail), server)

    def start() -> None:
        trust.start()
        trail.start()
        accounts.start()
        prepare()
        secrets.providers.start()
        if settings.rotation == "on":
            rotation.worker.start()

    def ready() -> None:
        database.check()
        keys.generations.refresh()

    def close() -> None:
        rotation.worker.close()
        secrets.providers.close()
        accounts.close()
        trust.close()
        trail.close()
        database.close()

    return Service(
        name=_NAME,
        services=[*(f"strongroom.secrets.v1.{name}" for name in _SERVICES), AUDIT_LOG_SERVICE],
        register=register,
        certificates=identity.certificates,
        verifier=verifier,
        start=start,
        ready=ready,
        close=close,
        audit=AuditLayers(trail),
        accounts=accounts,
        max_request_bytes=1 << 20,
        readings=secrets.providers.readings,
    )


def _register(keys: Keys, secrets: Secrets, rotation: RotationParts, server: grpc.Server) -> None:
    secrets_pb2_grpc.add_SecretServiceServicer_to_server(secrets.servicer, server)
    providers_pb2_grpc.add_ProviderServiceServicer_to_server(secrets.provider_servicer, server)
    rotations_pb2_grpc.add_SecretRotationServiceServicer_to_server(SecretRotationServicer(rotation.policies), server)
    keys_pb2_grpc.add_KeyServiceServicer_to_server(keys.servicer, server)
    root_key_pb2_grpc.add_RootKeyServiceServicer_to_server(keys.root_servicer, server)
