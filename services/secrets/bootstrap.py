"""The composition root of the secrets service."""

import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import grpc

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
from services.secrets.root_generations import RootGenerations
from services.secrets.root_key_servicer import RootKeyServicer
from services.secrets.root_keys.root_key import RootKeyUnavailable
from services.secrets.root_keys.source import RootKeySource
from services.secrets.root_move import RootMove
from services.secrets.settings import SecretsSettings
from services.secrets.tables import audit_events
from services.secrets.unwrap_limit import UnwrapLimit
from services.secrets.vault import Vault
from services.shared.accounts import accounts_for
from services.shared.audit.layer import AuditLayers
from services.shared.audit.servicer import AUDIT_LOG_SERVICE, AuditLogServicer
from services.shared.audit.trail import Trail
from services.shared.database import Database
from services.shared.service import Service
from services.shared.tokens import ServiceIdentity
from services.shared.trust import verifier_for
from strongroom import rates
from strongroom.audit.v1 import audit_log_pb2_grpc
from strongroom.secrets.v1 import keys_pb2_grpc, providers_pb2_grpc, root_key_pb2_grpc, secrets_pb2_grpc

_NAME = "secrets"
_MIGRATIONS = Path(__file__).parent / "migrations"
_SERVICES = ("SecretService", "ProviderService", "KeyService", "RootKeyService")


def _utc_now() -> datetime:
    return datetime.now(UTC)


def build(settings: SecretsSettings) -> Service:
    """Wires the service. Raises RootKeyError or ConfigurationError, which say what to do, before anything is served."""
    identity = ServiceIdentity.load(_NAME, settings.identity_dir)
    database = Database.open(settings.database_url.get_secret_value(), service=_NAME, migrations=_MIGRATIONS)
    source = RootKeySource(settings.root_key_file, settings.kms, settings.usual_kms)
    generations = RootGenerations(database, source, _utc_now)
    keyring = Keyring(database, generations)
    configured = load(settings.providers)
    outbox = Outbox(database, configured.replicas, _utc_now)
    vault = Vault(database, keyring, changed=outbox.changed)

    def prepare() -> None:
        generations.open()
        vault.prepare()

    # A root key that is elsewhere may not answer yet: that is waited for. What is wrong with it is told at once.
    with suppress(RootKeyUnavailable):
        prepare()
    opened = open_all(configured, EmbeddedProvider(vault, database))
    providers = Providers(configured, opened, database, outbox, _utc_now, settings.provider_seconds)
    trail = Trail(database, audit_events, identity, settings.data_dir, _utc_now)
    accounts = accounts_for(settings.auth_addr, identity, _utc_now)
    verifier, trust = verifier_for(_NAME, settings, identity)

    def register(server: grpc.Server) -> None:
        secrets_pb2_grpc.add_SecretServiceServicer_to_server(NamedSecretServicer(vault, database, providers), server)
        providers_pb2_grpc.add_ProviderServiceServicer_to_server(ProviderServicer(providers), server)
        limit = UnwrapLimit(rates.parse(settings.unwrap_limit), time.monotonic)
        keys_pb2_grpc.add_KeyServiceServicer_to_server(
            KeyServicer(keyring, KekRotation(database, keyring, _utc_now), limit), server
        )
        root_key_pb2_grpc.add_RootKeyServiceServicer_to_server(
            RootKeyServicer(source, generations, RootMove(database, generations)), server
        )
        audit_log_pb2_grpc.add_AuditLogServiceServicer_to_server(AuditLogServicer(trail), server)

    def start() -> None:
        trust.start()
        trail.start()
        accounts.start()
        prepare()
        providers.start()

    def ready() -> None:
        database.check()
        generations.refresh()

    def close() -> None:
        providers.close()
        accounts.close()
        trust.close()
        trail.close()
        database.close()

    return Service(
        name=_NAME,
        services=[*(f"strongroom.secrets.v1.{name}" for name in _SERVICES), AUDIT_LOG_SERVICE],
        register=register,
        verifier=verifier,
        start=start,
        ready=ready,
        close=close,
        audit=AuditLayers(trail),
        accounts=accounts,
        max_request_bytes=1 << 20,
    )
