"""Settings of the secrets service."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from services.shared.settings import ServiceSettings
from strongroom import rates


def _rate(text: str) -> str:
    rates.parse(text)
    return text


class SecretsSettings(ServiceSettings):
    """What the secrets service needs beyond every service's settings."""

    # The root key called `file`: 32 random bytes in base64, mode 0600.
    root_key_file: Path = Path(".strongroom/root.key")
    # A YAML file with other root keys (docs/root-keys.md); `kms.yaml` in `data_dir`, where there is one, if not set.
    kms: Path | None = None
    # Keys that each of the other services may have unwrapped: N/second, N/minute, N/hour or off.
    unwrap_limit: Annotated[str, AfterValidator(_rate)] = "30000/minute"
    # A YAML file that says where secrets are kept beside this service (docs/providers.md); nowhere if there is none.
    providers: Path | None = None
    # Seconds between two looks at what a provider lacks.
    provider_seconds: float = 1.0
    # `off`: no secret gets a new value; for a copy of an installation, which would rotate what the original uses.
    rotation: Literal["on", "off"] = "on"
    # HOST:PORT of the servers on which rotators may set new values, with commas between; see `rotation/targets.py`.
    rotation_targets: str = ""
    # A server that stands for AWS when access keys are rotated; AWS itself if empty.
    rotation_aws_endpoint: str = ""

    @property
    def usual_kms(self) -> Path:
        """Where the configuration of root keys is looked for if `kms` names none."""
        return self.data_dir / "kms.yaml"
