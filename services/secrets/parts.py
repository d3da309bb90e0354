"""What the secrets service is made of, wired: keys under the root key, and secrets here and with other providers."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

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
from services.secrets.root_keys.source import RootKeySource
from services.secrets.root_move import RootMove
from services.secrets.settings import SecretsSettings
from services.secrets.unwrap_limit import UnwrapLimit
from services.secrets.vault import Vault
from services.shared.database import Database
from strongroom import rates

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Keys:
    """The root key, and everybody's keys under it."""

    generations: RootGenerations
    keyring: Keyring
    servicer: KeyServicer
    root_servicer: RootKeyServicer

    @classmethod
    def of(cls, settings: SecretsSettings, database: Database, clock: Clock) -> Self:
        source = RootKeySource(settings.root_key_file, settings.kms, settings.usual_kms)
        generations = RootGenerations(database, source, clock)
        keyring = Keyring(database, generations, clock)
        limit = UnwrapLimit(rates.parse(settings.unwrap_limit), time.monotonic)
        return cls(
            generations,
            keyring,
            KeyServicer(keyring, KekRotation(database, keyring, clock), limit),
            RootKeyServicer(source, generations, RootMove(database, generations)),
        )


@dataclass(frozen=True)
class Secrets:
    """The vault, and the providers that follow it or are used by name."""

    vault: Vault
    providers: Providers
    servicer: NamedSecretServicer
    provider_servicer: ProviderServicer

    @classmethod
    def of(cls, settings: SecretsSettings, database: Database, keyring: Keyring, clock: Clock) -> Self:
        """Raises ConfigurationError."""
        configured = load(settings.providers)
        outbox = Outbox(database, configured.replicas, clock)
        vault = Vault(database, keyring, clock, changed=outbox.changed)
        opened = open_all(configured, EmbeddedProvider(vault, database, clock))
        calls = max(1, settings.workers // 2)
        providers = Providers(configured, opened, database, outbox, clock, settings.provider_seconds, calls)
        return cls(vault, providers, NamedSecretServicer(vault, database, providers), ProviderServicer(providers))
