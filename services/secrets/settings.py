"""Settings of the secrets service."""

from pathlib import Path

from services.shared.settings import ServiceSettings


class SecretsSettings(ServiceSettings):
    """What the secrets service needs beyond every service's settings."""

    # The root key: 32 random bytes in base64, mode 0600.
    root_key_file: Path = Path(".strongroom/root.key")
    # A YAML file that says where secrets are kept beside this service (docs/providers.md); nowhere if there is none.
    providers: Path | None = None
    # Seconds between two looks at what a provider lacks.
    provider_seconds: float = 1.0
    # HOST:PORT of the servers on which rotators may set new values, with commas between; see `rotation/targets.py`.
    rotation_targets: str = ""
    # A server that stands for AWS when access keys are rotated; AWS itself if empty.
    rotation_aws_endpoint: str = ""
