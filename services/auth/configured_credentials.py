"""The credentials that the settings give: static keys, the fixed token, and in open mode none at all."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from services.auth import fixed_token, open_mode, static_keys
from services.auth.admission import Authenticator
from services.auth.credentials import CredentialSource
from services.auth.explain import Directory
from services.auth.fixed_token import FixedToken
from services.auth.pepper import Pepper
from services.auth.secret_references import resolve
from services.auth.settings import ALIASES, AuthSettings
from services.auth.static_keys import KeyFile, StaticKeys, parse
from services.shared.identity import Principal

_log = structlog.get_logger()


@dataclass(frozen=True)
class ConfiguredCredentials:
    """What the settings give, for those who ask about credentials; `load` when the pepper is there."""

    authenticators: list[Authenticator]
    sources: dict[str, CredentialSource]
    directories: dict[str, Directory]
    # Who comes without a credential; None where that is refused.
    anonymous: Principal | None
    load: Callable[[], None]


def configured_credentials(
    settings: AuthSettings, pepper: Pepper, clock: Callable[[], datetime]
) -> ConfiguredCredentials:
    """Reads them, and says in the log what else than `STRONGROOM_…` was heeded.

    Raises ValueError or PermissionError, without the value, for one that can't be used.
    """
    for alias in settings.aliases_used:
        _log.info("settings.alias", used=alias, instead=f"STRONGROOM_{ALIASES[alias].upper()}")
    given = parse(resolve(settings.api_keys.get_secret_value()), "STRONGROOM_API_KEYS")
    keys = StaticKeys(given, KeyFile(settings.api_keys_file) if settings.api_keys_file else None, pepper, clock)
    authenticators: list[Authenticator] = [keys]
    sources: dict[str, CredentialSource] = {static_keys.KIND: keys}
    directories: dict[str, Directory] = {static_keys.KIND: keys.find}
    if settings.auth_token.get_secret_value():
        token = FixedToken(resolve(settings.auth_token.get_secret_value()), pepper)
        authenticators.append(token)
        sources[fixed_token.KIND] = token
        directories[fixed_token.KIND] = lambda name: token.principal() if name == fixed_token.NAME else None
    if settings.auth_mode == "open":
        _log.warning("auth.open_mode", advice="Anyone who reaches the gateway may use models, configs and jobs.")
        sources[open_mode.KIND] = open_mode.Anonymous()
        directories[open_mode.KIND] = lambda name: None if name else open_mode.ANONYMOUS
    anonymous = open_mode.ANONYMOUS if settings.auth_mode == "open" else None
    return ConfiguredCredentials(authenticators, sources, directories, anonymous, keys.load)
