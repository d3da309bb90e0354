"""What the auth service is made of, wired: what everything stands on, who may come in, what is counted, the edge."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import grpc
from argon2 import PasswordHasher

from services.auth import bootstrap_key, contract, ext_authz, first_administrator
from services.auth.admission import Admission, Authenticator
from services.auth.api_key_authenticator import ApiKeyAuthenticator
from services.auth.api_keys import ApiKeys
from services.auth.aws_sign_in import AwsSignIn
from services.auth.check_socket import CheckSocket
from services.auth.cleaner import Cleaner
from services.auth.configured_credentials import ConfiguredCredentials, configured_credentials
from services.auth.credentials import Credentials
from services.auth.directories import directories
from services.auth.edge_events import EdgeEvents
from services.auth.explain import Explainer
from services.auth.guesses import Guesses
from services.auth.health import Health
from services.auth.issuer import TokenIssuer
from services.auth.key_service import remote_envelope
from services.auth.key_versions import KeyVersions
from services.auth.ledger import Ledger
from services.auth.outside import Outside, outside
from services.auth.password_hashing import PasswordHashing
from services.auth.pepper import Pepper
from services.auth.quota_counters import QuotaCounters
from services.auth.registry_counts import RegistryCounts
from services.auth.sessions import Lifetimes, Sessions
from services.auth.settings import AuthSettings
from services.auth.sign_in import SignIn
from services.auth.signing_keys import SigningKeys
from services.auth.throttle import Throttle
from services.auth.timestamps import Clock
from services.auth.users import Users
from services.shared.access import methods_of
from services.shared.accounts import Accounts
from services.shared.audit.trail import Trail
from services.shared.database import Database
from services.shared.metering import Meter
from services.shared.quotas import Leases
from strongroom import addresses, rates


@dataclass(frozen=True)
class Core:
    """What everything else stands on: rows and keys."""

    database: Database
    clock: Clock
    pepper: Pepper
    signing_keys: SigningKeys

    @classmethod
    def of(cls, settings: AuthSettings, database: Database, secrets: grpc.Channel, clock: Clock) -> Self:
        envelope = remote_envelope(secrets)
        delay, days = timedelta(seconds=settings.signing_key_delay_seconds), timedelta(days=settings.signing_key_days)
        signing_keys = SigningKeys(database, envelope, clock, delay, rotate_after=days)
        return cls(database, clock, Pepper(database, envelope, clock), signing_keys)


@dataclass(frozen=True)
class FirstCredentials:
    """Those a service has from its start, read before anything is made."""

    key: str
    administrator: first_administrator.FirstAdministrator | None

    @classmethod
    def of(cls, settings: AuthSettings) -> Self:
        """Raises ValueError or PermissionError, without the value, for one that can't be used."""
        key, file = settings.bootstrap_api_key.get_secret_value(), settings.bootstrap_api_key_file
        if key and file:
            raise ValueError("Set STRONGROOM_BOOTSTRAP_API_KEY or STRONGROOM_BOOTSTRAP_API_KEY_FILE, not both.")
        if file:
            key = bootstrap_key.read_file(file)
        elif key:
            key = bootstrap_key.check(key)
        password = settings.admin_password.get_secret_value()
        return cls(key, first_administrator.read(settings.admin_email, password, settings.admin_password_file))

    def ensure(self, core: Core, users: Users) -> None:
        if self.key:
            bootstrap_key.ensure(core.database, core.pepper, self.key, core.clock())
        if self.administrator:
            first_administrator.ensure(users, self.administrator)


@dataclass(frozen=True)
class Identities:
    """Who may come in: keys, users and their sessions, what the settings give, and identities from outside."""

    configured: ConfiguredCredentials
    outside: Outside
    credentials: Credentials
    issuer: TokenIssuer
    api_keys: ApiKeys
    users: Users
    sessions: Sessions
    throttle: Throttle
    sign_in: SignIn
    aws: AwsSignIn
    hashing: PasswordHashing
    authenticators: tuple[Authenticator, ...]

    @classmethod
    def of(cls, core: Core, settings: AuthSettings) -> Self:
        database, pepper, clock = core.database, core.pepper, core.clock
        configured = configured_credentials(settings, pepper, clock)
        key_versions = KeyVersions(database, pepper, clock)
        lifetimes = Lifetimes(timedelta(days=settings.session_idle_days), timedelta(days=settings.session_days))
        sessions = Sessions(database, pepper, lifetimes, clock)
        others = outside(settings, clock)
        credentials = Credentials({"key": key_versions, "session": sessions, **configured.sources, **others.sources})
        issuer = TokenIssuer(core.signing_keys, credentials, clock, settings.issuer)
        api_keys = ApiKeys(database, pepper, clock, credentials.unusable)
        hashing = _hashing(settings, pepper)
        throttle = Throttle(database, pepper, clock)
        return cls(
            configured,
            others,
            credentials,
            issuer,
            api_keys,
            users=Users(database, hashing, api_keys.revoke_owned, clock),
            sessions=sessions,
            throttle=throttle,
            sign_in=SignIn(database, sessions, hashing, throttle, issuer, clock),
            aws=others.aws(database, issuer),
            hashing=hashing,
            authenticators=(
                *others.authenticators,
                *configured.authenticators,
                ApiKeyAuthenticator(key_versions, clock),
            ),
        )

    def explainer(self) -> Explainer:
        """Of what each of them may do."""
        found = directories(self.api_keys, self.users) | self.configured.directories
        return Explainer(methods_of(contract.contract_services()), found)

    def close(self) -> None:
        self.hashing.close()
        self.outside.web.close()


@dataclass(frozen=True)
class Counts:
    """What each of them uses, and how much of it they may."""

    ledger: Ledger
    quotas: QuotaCounters
    accounts: Accounts

    @classmethod
    def of(cls, core: Core) -> Self:
        ledger, quotas = Ledger(core.database, core.clock), QuotaCounters(core.database, core.clock)
        return cls(ledger, quotas, Accounts(Meter(ledger.record, core.clock), Leases(quotas.reserve, core.clock)))


@dataclass(frozen=True)
class Gate:
    """What the gateway asks of every request, by gRPC and on a socket of its own."""

    events: EdgeEvents
    edge: ext_authz.Edge
    check_socket: CheckSocket | None

    @classmethod
    def of(cls, identities: Identities, trail: Trail, settings: AuthSettings) -> Self:
        events = EdgeEvents(trail.note, settings.alert_failures, settings.alert_window_seconds)
        methods = methods_of(contract.contract_services())
        anonymous = identities.configured.anonymous
        admission = Admission(methods, identities.authenticators, identities.issuer, events, anonymous)
        guesses = Guesses(rates.parse(settings.rate_limit or rates.DEFAULT), time.monotonic)
        edge = ext_authz.Edge(admission, guesses, events)
        return cls(events, edge, CheckSocket(settings.check_socket, edge) if settings.check_socket else None)

    def start(self) -> None:
        if self.check_socket:
            self.check_socket.start()

    def close(self) -> None:
        if self.check_socket:
            self.check_socket.close()


@dataclass(frozen=True)
class Parts:
    """All of it."""

    first: FirstCredentials
    core: Core
    identities: Identities
    counts: Counts
    gate: Gate
    health: Health
    registry: RegistryCounts
    cleaner: Cleaner
    trail: Trail

    @classmethod
    def of(
        cls,
        first: FirstCredentials,
        settings: AuthSettings,
        database: Database,
        channels: Mapping[str, grpc.Channel],
        trail: Trail,
        clock: Clock,
    ) -> Self:
        """Nothing is asked of `channels`, those to the other services by name, before `start`.

        Raises ValueError or PermissionError, without the value, for a setting that can't be used.
        """
        core = Core.of(settings, database, channels["secrets"], clock)
        identities = Identities.of(core, settings)
        counts = Counts.of(core)
        gate = Gate.of(identities, trail, settings)
        found_at = {"models": settings.models_addr, "secrets": settings.secrets_addr}
        replicas = {name: len(addresses.parse(text)) for name, text in found_at.items()}
        health = Health(database, core.signing_keys.current, channels, replicas)
        expiring = identities.sessions, identities.throttle, identities.aws, counts.ledger, counts.quotas
        cleaner = Cleaner([part.clean for part in expiring])
        registry = RegistryCounts(channels["models"])
        return cls(first, core, identities, counts, gate, health, registry, cleaner, trail)

    def start(self) -> None:
        """May be repeated while another service is waited for."""
        self.trail.start()
        self.core.pepper.load()
        self.identities.configured.load()
        self.first.ensure(self.core, self.identities.users)
        self.gate.start()
        # Behind everybody who may sign in: health looks at these keys, and whoever waits for it signs in at once.
        self.core.signing_keys.load()
        self.counts.accounts.start()
        self.cleaner.start()

    def close(self) -> None:
        self.gate.close()
        self.cleaner.close()
        self.identities.close()
        self.counts.accounts.close()
        self.trail.close()


def _hashing(settings: AuthSettings, pepper: Pepper) -> PasswordHashing:
    hasher = PasswordHasher(
        time_cost=settings.password_passes,
        memory_cost=settings.password_memory_kib,
        parallelism=settings.password_lanes,
    )
    return PasswordHashing(pepper, hasher, threads=settings.password_threads, waiting=settings.password_waiting)
