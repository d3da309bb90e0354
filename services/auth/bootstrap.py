"""The composition root of the auth service."""

import time
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import grpc
from argon2 import PasswordHasher

from services.auth import bootstrap_key, contract, ext_authz, first_administrator, outside
from services.auth.access_servicer import AccessServicer
from services.auth.admission import Admission
from services.auth.api_key_authenticator import ApiKeyAuthenticator
from services.auth.api_key_servicer import ApiKeyServicer
from services.auth.api_keys import ApiKeys
from services.auth.audit_servicer import AuditServicer
from services.auth.check_socket import CheckSocket
from services.auth.cleaner import Cleaner
from services.auth.configured_credentials import configured_credentials
from services.auth.credentials import Credentials
from services.auth.directories import directories
from services.auth.edge_events import EdgeEvents
from services.auth.envelope import Envelope
from services.auth.explain import Explainer
from services.auth.guesses import Guesses
from services.auth.health import Health
from services.auth.info_servicer import InfoServicer
from services.auth.issuer import TokenIssuer
from services.auth.key_ages import KeyAges
from services.auth.key_service import remote_envelope
from services.auth.key_versions import KeyVersions
from services.auth.ledger import Ledger
from services.auth.manager_count import ManagerCount
from services.auth.password_hashing import PasswordHashing
from services.auth.pepper import Pepper
from services.auth.quota_counters import QuotaCounters
from services.auth.session_servicer import SessionServicer
from services.auth.sessions import Lifetimes, Sessions
from services.auth.settings import AuthSettings
from services.auth.sign_in import SignIn
from services.auth.signing_keys import SigningKeys
from services.auth.tables import audit_events
from services.auth.throttle import Throttle
from services.auth.timestamps import Clock
from services.auth.token_servicer import TokenServicer
from services.auth.usage_servicer import UsageServicer
from services.auth.user_servicer import UserServicer
from services.auth.users import Users
from services.shared.access import methods_of
from services.shared.accounts import Accounts
from services.shared.audit.layer import AuditLayers
from services.shared.audit.servicer import AUDIT_LOG_SERVICE, AuditLogServicer
from services.shared.audit.trail import Trail
from services.shared.channels import service_channel
from services.shared.database import Database
from services.shared.metering import Meter
from services.shared.quotas import Leases
from services.shared.service import Service
from services.shared.tokens import ServiceIdentity, TokenVerifier, load_service_keys
from strongroom import rates
from strongroom.audit.v1 import audit_log_pb2_grpc
from strongroom.auth.v1 import (
    access_pb2_grpc,
    api_keys_pb2_grpc,
    audit_pb2_grpc,
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

    Raises ValueError or PermissionError, without the value, for a bootstrap key that can't be used.
    """
    first_key = _bootstrap_key(settings)
    administrator = first_administrator.read(
        settings.admin_email, settings.admin_password.get_secret_value(), settings.admin_password_file
    )
    identity = ServiceIdentity.load(_NAME, settings.identity_dir)
    database = Database.open(settings.database_url.get_secret_value(), service=_NAME, migrations=_MIGRATIONS)
    addresses = {"models": settings.models_addr, "secrets": settings.secrets_addr}
    channels = {name: service_channel(address, name, identity) for name, address in addresses.items()}
    envelope = remote_envelope(channels["secrets"])

    pepper = Pepper(database, envelope, clock)
    signing_keys = _signing_keys(settings, database, envelope, clock)
    configured = configured_credentials(settings, pepper, clock)
    key_versions = KeyVersions(database, pepper, clock)
    sessions = Sessions(database, pepper, _lifetimes(settings), clock)
    others = outside.outside(settings, clock)
    credentials = Credentials({"key": key_versions, "session": sessions, **configured.sources, **others.sources})
    api_keys = ApiKeys(database, pepper, clock, credentials.unusable)
    issuer = TokenIssuer(signing_keys, credentials, clock, settings.issuer)
    aws = others.aws(database, issuer)
    ledger, counters = Ledger(database, clock), QuotaCounters(database, clock)
    accounts = Accounts(Meter(ledger.record, clock), Leases(counters.reserve, clock))
    hashing = _hashing(settings, pepper)
    throttle = Throttle(database, pepper, clock)
    users = Users(database, hashing, api_keys.revoke_owned, clock)
    sign_in = SignIn(database, sessions, hashing, throttle, issuer, clock)
    cleaner = Cleaner([sessions.clean, throttle.clean, aws.clean, ledger.clean, counters.clean])
    authenticators = [
        *others.authenticators,
        *configured.authenticators,
        ApiKeyAuthenticator(key_versions, clock),
    ]
    trail = Trail(database, audit_events, identity, settings.data_dir, clock)
    events = EdgeEvents(trail.note, settings.alert_failures, settings.alert_window_seconds)
    admission = Admission(
        methods_of(contract.contract_services()), authenticators, issuer, events, configured.anonymous
    )
    guesses = Guesses(rates.parse(settings.rate_limit or rates.DEFAULT), time.monotonic)
    edge = ext_authz.Edge(admission, guesses, events)
    check_socket = CheckSocket(settings.check_socket, edge) if settings.check_socket else None
    explainer = Explainer(
        methods_of(contract.contract_services()), directories(api_keys, users) | configured.directories
    )
    health = Health(database, signing_keys.current, channels)
    manager_count = ManagerCount(channels["models"])

    def register(server: grpc.Server) -> None:
        key_servicer = ApiKeyServicer(api_keys, KeyAges(database, clock), clock)
        api_keys_pb2_grpc.add_ApiKeyServiceServicer_to_server(key_servicer, server)
        users_pb2_grpc.add_UserServiceServicer_to_server(UserServicer(users), server)
        sessions_pb2_grpc.add_SessionServiceServicer_to_server(SessionServicer(sign_in, sessions), server)
        tokens_pb2_grpc.add_TokenServiceServicer_to_server(
            TokenServicer(issuer, signing_keys, credentials, aws, settings.public_url, clock), server
        )
        info_pb2_grpc.add_InfoServiceServicer_to_server(InfoServicer(_version(), health, manager_count, clock), server)
        access_pb2_grpc.add_AccessServiceServicer_to_server(AccessServicer(explainer), server)
        usage_pb2_grpc.add_UsageServiceServicer_to_server(UsageServicer(ledger, counters), server)
        part = AuditLogServicer(trail)
        audit_log_pb2_grpc.add_AuditLogServiceServicer_to_server(part, server)
        audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditServicer(part, channels, clock), server)
        ext_authz.register(server, edge)

    def start() -> None:
        trail.start()
        pepper.load()
        configured.load()
        if first_key:
            bootstrap_key.ensure(database, pepper, first_key, clock())
        if administrator:
            first_administrator.ensure(users, administrator)
        if check_socket:
            check_socket.start()
        # Behind everybody who may sign in: health looks at these keys, and whoever waits for it signs in at once.
        signing_keys.load()
        accounts.start()
        cleaner.start()

    def close() -> None:
        if check_socket:
            check_socket.close()
        cleaner.close()
        hashing.close()
        others.web.close()
        accounts.close()
        trail.close()
        for channel in channels.values():
            channel.close()
        database.close()

    return Service(
        name=_NAME,
        services=[
            *(name for name in contract.contract_services() if name.startswith("strongroom.auth.")),
            AUDIT_LOG_SERVICE,
        ],
        register=register,
        verifier=TokenVerifier(
            audience=_NAME,
            access_keys=signing_keys.public_key,
            service_keys=load_service_keys(settings.identity_dir),
            revoked=credentials.unusable,
            clock=lambda: clock().timestamp(),
            issuer=settings.issuer,
        ),
        start=start,
        # Looks at the database, finds signing keys that another replica has made, and makes them when it is time.
        ready=signing_keys.maintain,
        close=close,
        audit=AuditLayers(trail, events.refused),
        accounts=accounts,
        reflected=contract.described_services(),
    )


def _bootstrap_key(settings: AuthSettings) -> str:
    value, file = settings.bootstrap_api_key.get_secret_value(), settings.bootstrap_api_key_file
    if value and file:
        raise ValueError("Set STRONGROOM_BOOTSTRAP_API_KEY or STRONGROOM_BOOTSTRAP_API_KEY_FILE, not both.")
    if file:
        return bootstrap_key.read_file(file)
    return bootstrap_key.check(value) if value else ""


def _signing_keys(settings: AuthSettings, database: Database, envelope: Envelope, clock: Clock) -> SigningKeys:
    delay, days = timedelta(seconds=settings.signing_key_delay_seconds), timedelta(days=settings.signing_key_days)
    return SigningKeys(database, envelope, clock, delay, rotate_after=days)


def _hashing(settings: AuthSettings, pepper: Pepper) -> PasswordHashing:
    hasher = PasswordHasher(
        time_cost=settings.password_passes,
        memory_cost=settings.password_memory_kib,
        parallelism=settings.password_lanes,
    )
    return PasswordHashing(pepper, hasher, threads=settings.password_threads, waiting=settings.password_waiting)


def _lifetimes(settings: AuthSettings) -> Lifetimes:
    return Lifetimes(timedelta(days=settings.session_idle_days), timedelta(days=settings.session_days))


def _version() -> str:
    return metadata.version("strongroom")
