"""Settings of the models service."""

from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from services.shared.settings import ServiceSettings


class ModelsSettings(ServiceSettings):
    """What the models service needs beyond every service's settings."""

    # Seconds between two collections of garbage.
    collect_seconds: float = 3600.0

    # A unix socket for bulk streams that need not pass the gateway; its folder is for this user alone. None if empty.
    bulk_socket: Annotated[str, StringConstraints(pattern=r"^(/.{1,106})?$")] = ""

    @property
    def weights_dir(self) -> Path:
        """The folder of the local store."""
        return self.data_dir / "weights"
