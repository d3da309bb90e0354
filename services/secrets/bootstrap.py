"""The composition root of the secrets service."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc

from services.secrets import root_key
from services.secrets.kek_rotation import KekRotation
from services.secrets.key_servicer import KeyServicer
from services.secrets.keyring import Keyring
from services.secrets.named_secret_servicer import NamedSecretServicer
from services.secrets.provider_servicer import ProviderServicer
from services.secrets.providers.composition import Providers
from services.secrets.providers.configuration import load
from services.secrets.providers.embedded import EmbeddedProvider
from services.secrets.providers.opening import open_all
from services.secrets.providers.outbox import Outbox
from services.secrets.rotation.parts import RotationParts
from services.secrets.rotation.servicer import SecretRotationServicer
from services.secrets.settings import SecretsSettings
from services.secrets.tables import audit_events
from services.secrets.vault import Vault
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
    keys_pb2,
    keys_pb2_grpc,
    providers_pb2,
    providers_pb2_grpc,
    rotations_pb2,
    rotations_pb2_grpc,
    secrets_pb2,
    secrets_pb2_grpc,
)

_NAME = "secrets"
_MIGRATIONS = Path(__file__).parent / "migrations"


def _utc_now() -> datetime:
    return datetime.now(UTC)


def build(settings: SecretsSettings, clock: Callable[[], datetime] = _utc_now) -> Service:
    """Wires the service. Raises RootKeyError or ConfigurationError, which say what to do, before anything is served."""
    key = root_key.load(settings.root_key_file)
    identity = ServiceIdentity.load(_NAME, settings.identity_dir)
    database = Database.open(settings.database_url.get_secret_value(), service=_NAME, migrations=_MIGRATIONS)
    keyring = Keyring(database, key)
    keyring.check_root_key()
    configured = load(settings.providers)
    outbox = Outbox(database, configured.replicas, clock)
    vault = Vault(database, keyring, changed=outbox.changed)
    vault.prepare()
    opened = open_all(configured, EmbeddedProvider(vault, database))
    providers = Providers(configured, opened, database, outbox, clock, settings.provider_seconds)
    trail = Trail(database, audit_events, identity, settings.data_dir, clock)
    accounts = accounts_for(settings.auth_addr, identity, clock)
    rotation = RotationParts.of(settings, database, vault, trail, clock)
    verifier, trust = verifier_for(_NAME, settings, identity)

    def register(server: grpc.Server) -> None:
        secrets_pb2_grpc.add_SecretServiceServicer_to_server(NamedSecretServicer(vault, database, providers), server)
        providers_pb2_grpc.add_ProviderServiceServicer_to_server(ProviderServicer(providers), server)
        keys_pb2_grpc.add_KeyServiceServicer_to_server(
            KeyServicer(keyring, KekRotation(database, keyring, clock)), server
        )
        rotations_pb2_grpc.add_SecretRotationServiceServicer_to_server(
            SecretRotationServicer(rotation.policies), server
        )
        audit_log_pb2_grpc.add_AuditLogServiceServicer_to_server(AuditLogServicer(trail), server)

    def start() -> None:
        trust.start()
        trail.start()
        accounts.start()
        providers.start()
        rotation.worker.start()

    def close() -> None:
        rotation.worker.close()
        providers.close()
        accounts.close()
        trust.close()
        trail.close()
        database.close()

    return Service(
        name=_NAME,
        services=[
            secrets_pb2.DESCRIPTOR.services_by_name["SecretService"].full_name,
            providers_pb2.DESCRIPTOR.services_by_name["ProviderService"].full_name,
            keys_pb2.DESCRIPTOR.services_by_name["KeyService"].full_name,
            rotations_pb2.DESCRIPTOR.services_by_name["SecretRotationService"].full_name,
            AUDIT_LOG_SERVICE,
        ],
        register=register,
        verifier=verifier,
        start=start,
        ready=database.check,
        close=close,
        audit=AuditLayers(trail),
        accounts=accounts,
        max_request_bytes=1 << 20,
    )
