"""Settings of the auth service."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from services.shared.settings import ServiceSettings
from strongroom import rates

# https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
MIN_PASSWORD_MEMORY_KIB, MIN_PASSWORD_PASSES = 19_456, 2


# Names that other products have for some of these settings; each counts where ours is not set.
ALIASES = {
    "API_KEYS": "api_keys",
    "CHAPKIT_API_KEYS": "api_keys",
    "API_KEYS_FILE": "api_keys_file",
    "AUTH_TOKEN": "auth_token",
    "JWT_SECRET": "jwt_secret",
}


class AuthSettings(ServiceSettings):
    """What the auth service needs beyond every service's settings: one of the two keys, or neither."""

    # The administrator's key: 16 characters or more.
    bootstrap_api_key: SecretStr = SecretStr("")
    # A file of mode 0600 that holds it.
    bootstrap_api_key_file: Path | None = None
    # Of a client, as the gateway has it: here, of refused credentials from one address.
    rate_limit: str = rates.DEFAULT
    # A unix socket on which a gateway on this machine asks about credentials; none if unset.
    check_socket: Path | None = None

    # Static keys: `name:permission_set:key` or a key alone, with commas between them; and a file of them, one a line.
    api_keys: SecretStr = SecretStr("")
    api_keys_file: Path | None = None
    # A fixed bearer token; none if empty.
    auth_token: SecretStr = SecretStr("")
    # `open` lets in whoever has no credential, to use the product and administer nothing.
    auth_mode: Literal["required", "open"] = "required"
    # Which of the names in ALIASES counted.
    aliases_used: tuple[str, ...] = ()

    # A new signing key is published for so many seconds before it signs: longer than anybody keeps a key set. The
    # gateway keeps one for two thirds of them, at most 60 s.
    signing_key_delay_seconds: Annotated[int, Field(ge=5, le=86_400)] = 90
    # Days after which the signing key is replaced; 0 for never.
    signing_key_days: Annotated[float, Field(ge=0, le=3650)] = 90

    # OpenID providers whose tokens are accepted, see docs/outside-identities.md.
    oidc_issuers: Path | None = None
    # Of HS256 tokens that are accepted, 32 bytes or more; none if empty.
    jwt_secret: SecretStr = SecretStr("")

    # AWS identities that may sign in, see docs/outside-identities.md.
    aws_roles: Path | None = None
    # Regions whose STS may be named in a signed request beside the global one, with commas between them.
    aws_regions: str = ""
    # The one STS to ask instead of Amazon's: https, or http on this machine.
    aws_sts_endpoint: str = ""
    # What a signed request must be made for; the public URL if empty.
    aws_server_id: str = ""

    # The first administrator, created at start if nobody has the e-mail address.
    admin_email: str = ""
    # 12 characters or more; or a file of mode 0600 that holds it.
    admin_password: SecretStr = SecretStr("")
    admin_password_file: Path | None = None

    # argon2id, after RFC 9106's second recommendation: KiB of memory, passes over it, lanes. Less than OWASP's minimum
    # of 19 MiB and two passes is refused. Changed parameters take hold of a user's password at the next sign-in.
    password_memory_kib: Annotated[int, Field(le=4 << 20)] = 65_536
    password_passes: Annotated[int, Field(ge=1, le=100)] = 3
    password_lanes: Annotated[int, Field(ge=1, le=64)] = 4
    # Takes parameters below that minimum; for tests alone.
    password_cheap: bool = False
    # Passwords that are computed at the same time, each with that memory, and that wait; more are refused.
    password_threads: Annotated[int, Field(ge=1, le=64)] = 2
    password_waiting: Annotated[int, Field(ge=2, le=1024)] = 16

    # Days that a session lasts without being refreshed, and at most.
    session_idle_days: Annotated[float, Field(gt=0, le=365)] = 7
    session_days: Annotated[float, Field(gt=0, le=365)] = 30

    # So many refused credentials from one address within so many seconds are unusual: an alert event, and a warning.
    alert_failures: Annotated[int, Field(ge=1, le=100_000)] = 50
    alert_window_seconds: Annotated[float, Field(gt=0)] = 300

    @field_validator("bootstrap_api_key_file", "api_keys_file", "admin_password_file", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        """Compose files pass on what is not set as an empty text, which would be the current folder."""
        return None if value == "" else value

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: Any,
        env_settings: Any,
        **_others: Any,
    ) -> tuple[Any, ...]:
        return init_settings, env_settings, _aliases

    @model_validator(mode="after")
    def _passwords_are_expensive(self) -> Self:
        enough = self.password_memory_kib >= MIN_PASSWORD_MEMORY_KIB and self.password_passes >= MIN_PASSWORD_PASSES
        if not (enough or self.password_cheap):
            raise ValueError(
                f"STRONGROOM_PASSWORD_MEMORY_KIB must be {MIN_PASSWORD_MEMORY_KIB} or more and "
                f"STRONGROOM_PASSWORD_PASSES {MIN_PASSWORD_PASSES} or more."
            )
        return self


def _aliases() -> dict[str, Any]:
    ours = {name.upper() for name in os.environ}
    used = {
        alias: field
        for alias, field in ALIASES.items()
        if os.environ.get(alias) and f"STRONGROOM_{field.upper()}" not in ours
    }
    return {field: os.environ[alias] for alias, field in used.items()} | {"aliases_used": tuple(used)}
