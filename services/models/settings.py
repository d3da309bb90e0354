"""Settings of the models service."""

from pathlib import Path

from services.shared.settings import ServiceSettings


class ModelsSettings(ServiceSettings):
    """What the models service needs beyond every service's settings."""

    # Seconds between two collections of garbage.
    collect_seconds: float = 3600.0

    @property
    def weights_dir(self) -> Path:
        """The folder of the local store."""
        return self.data_dir / "weights"
