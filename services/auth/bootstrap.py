"""The composition root of the auth service."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path

import grpc

from services.auth import contract, ext_authz
from services.auth.access_servicer import AccessServicer
from services.auth.api_key_servicer import ApiKeyServicer
from services.auth.audit_servicer import AuditServicer
from services.auth.document_servicer import DocumentServicer
from services.auth.documents import Documents
from services.auth.info_servicer import InfoServicer
from services.auth.key_ages import KeyAges
from services.auth.parts import FirstCredentials, Parts
from services.auth.session_servicer import SessionServicer
from services.auth.settings import AuthSettings
from services.auth.tables import audit_events
from services.auth.timestamps import Clock
from services.auth.token_servicer import TokenServicer
from services.auth.usage_servicer import UsageServicer
from services.auth.user_servicer import UserServicer
from services.shared.audit.layer import AuditLayers
from services.shared.audit.servicer import AUDIT_LOG_SERVICE, AuditLogServicer
from services.shared.audit.trail import Trail
from services.shared.channels import service_channel
from services.shared.database import Database
from services.shared.service import Service
from services.shared.tokens import ServiceIdentity, TokenVerifier, load_service_keys
from strongroom.audit.v1 import audit_log_pb2_grpc
from strongroom.auth.v1 import (
    access_pb2_grpc,
    api_keys_pb2_grpc,
    audit_pb2_grpc,
    documents_pb2_grpc,
    info_pb2_grpc,
    sessions_pb2_grpc,
    tokens_pb2_grpc,
    usage_pb2_grpc,
    users_pb2_grpc,
)

_NAME = "auth"
_MIGRATIONS = Path(__file__).parent / "migrations"


def _utc_now() -> datetime:
    return datetime.now(UTC)


def build(settings: AuthSettings, clock: Clock = _utc_now) -> Service:
    """Wires the service. Nothing is asked of the other services before its `start`.

    Raises ValueError or PermissionError, without the value, for a setting that can't be used.
    """
    first = FirstCredentials.of(settings)
    identity = ServiceIdentity.load(_NAME, settings.identity_dir, settings.pki_dir)
    database = Database.open(settings.database_url.get_secret_value(), service=_NAME, migrations=_MIGRATIONS)
    addresses = {"models": settings.models_addr, "secrets": settings.secrets_addr}
    channels = {name: service_channel(address, name, identity) for name, address in addresses.items()}
    trail = Trail(database, audit_events, identity, settings.data_dir, clock)
    parts = Parts.of(first, settings, database, channels, trail, clock)

    def close() -> None:
        parts.close()
        for channel in channels.values():
            channel.close()
        database.close()

    return Service(
        name=_NAME,
        services=[
            *(name for name in contract.contract_services() if name.startswith("strongroom.auth.")),
            AUDIT_LOG_SERVICE,
        ],
        register=partial(_register, parts, channels, settings.public_url),
        certificates=identity.certificates,
        verifier=TokenVerifier(
            audience=_NAME,
            access_keys=parts.core.signing_keys.public_key,
            service_keys=load_service_keys(settings.identity_dir),
            revoked=parts.identities.credentials.unusable,
            clock=lambda: clock().timestamp(),
            issuer=settings.issuer,
        ),
        start=parts.start,
        # Looks at the database, finds signing keys that another replica has made, and makes them when it is time.
        ready=parts.core.signing_keys.maintain,
        close=close,
        audit=AuditLayers(trail, parts.gate.events.refused),
        accounts=parts.counts.accounts,
        reflected=contract.described_services(),
    )


def _register(parts: Parts, channels: Mapping[str, grpc.Channel], public_url: str, server: grpc.Server) -> None:
    core, identities, counts = parts.core, parts.identities, parts.counts
    key_servicer = ApiKeyServicer(identities.api_keys, KeyAges(core.database, core.clock), core.clock)
    api_keys_pb2_grpc.add_ApiKeyServiceServicer_to_server(key_servicer, server)
    users_pb2_grpc.add_UserServiceServicer_to_server(UserServicer(identities.users), server)
    session_servicer = SessionServicer(identities.sign_in, identities.sessions)
    sessions_pb2_grpc.add_SessionServiceServicer_to_server(session_servicer, server)
    token_servicer = TokenServicer(
        identities.issuer, core.signing_keys, identities.credentials, identities.aws, public_url, core.clock
    )
    tokens_pb2_grpc.add_TokenServiceServicer_to_server(token_servicer, server)
    info_pb2_grpc.add_InfoServiceServicer_to_server(
        InfoServicer(_version(), parts.health, parts.registry, core.clock), server
    )
    documents_pb2_grpc.add_DocumentServiceServicer_to_server(DocumentServicer(Documents.load()), server)
    access_pb2_grpc.add_AccessServiceServicer_to_server(AccessServicer(identities.explainer()), server)
    usage_pb2_grpc.add_UsageServiceServicer_to_server(UsageServicer(counts.ledger, counts.quotas), server)
    own = AuditLogServicer(parts.trail)
    audit_log_pb2_grpc.add_AuditLogServiceServicer_to_server(own, server)
    audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditServicer(own, channels, core.clock), server)
    ext_authz.register(server, parts.gate.edge)


def _version() -> str:
    return metadata.version("strongroom")
