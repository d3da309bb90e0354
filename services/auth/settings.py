"""Settings of the auth service."""

from pathlib import Path

from pydantic import SecretStr

from services.shared.settings import ServiceSettings


class AuthSettings(ServiceSettings):
    """What the auth service needs beyond every service's settings: one of the two keys, or neither."""

    # The administrator's key: 16 characters or more.
    bootstrap_api_key: SecretStr = SecretStr("")
    # A file of mode 0600 that holds it.
    bootstrap_api_key_file: Path | None = None
