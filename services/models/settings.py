"""Settings of the models service."""

from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from services.models.stores import configuration
from services.models.stores.configuration import StoresConfiguration
from services.shared.settings import ServiceSettings


class ModelsSettings(ServiceSettings):
    """What the models service needs beyond every service's settings."""

    # Seconds between two collections of garbage.
    collect_seconds: float = 3600.0
    # A YAML file that says where weights are kept (docs/stores.md); on the local disk if there is none.
    stores: Path | None = None

    # A unix socket for bulk streams that need not pass the gateway; its folder is for this user alone. None if empty.
    bulk_socket: Annotated[str, StringConstraints(pattern=r"^(/.{1,106})?$")] = ""
    # Seconds between two looks at what a store lacks.
    sync_seconds: float = 2.0

    @property
    def weights_dir(self) -> Path:
        """The folder of the local store that is used if no other is named."""
        return self.data_dir / "weights"

    def stores_configuration(self) -> StoresConfiguration:
        """Where weights are kept. Raises ConfigurationError."""
        if self.stores is None:
            return StoresConfiguration.only_local(self.weights_dir)
        return configuration.load(self.stores, self.weights_dir.absolute())
