"""Settings of the models service."""

from pathlib import Path

from services.shared.settings import ServiceSettings


class ModelsSettings(ServiceSettings):
    """What the models service needs beyond every service's settings."""

    # Seconds between two collections of garbage.
    collect_seconds: float = 3600.0

    # The YAML file that says where weights are kept (docs/stores.md); the folder `weights` in `data_dir` if unset.
    stores: Path | None = None
    # Seconds between two looks at what a store lacks.
    sync_seconds: float = 2.0

    @property
    def weights_dir(self) -> Path:
        """The folder of the local store that is used if no other is named."""
        return self.data_dir / "weights"
