"""Settings of the models service."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from services.models.stores import configuration
from services.models.stores.configuration import StoresConfiguration
from services.shared.settings import ServiceSettings

_JobKind = Annotated[str, StringConstraints(pattern="^(train|predict)$")]


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

    # Jobs that run at a time; as many as there are processors if 0.
    job_slots: Annotated[int, Field(ge=0, le=256)] = 0
    # Of one job: MiB of address space, MiB of files, seconds.
    job_memory_mb: Annotated[int, Field(ge=256)] = 4096
    job_folder_mb: Annotated[int, Field(ge=1)] = 1024
    job_timeout_seconds: Annotated[int, Field(ge=1)] = 3600
    # Seconds after which the jobs of a service that was killed, and says nothing more of them, are run by another.
    job_lease_seconds: Annotated[int, Field(ge=5, le=3600)] = 15
    # `full`: no network, no files but the program's, no processes (docs/training.md). `limits`: only the limits above,
    # for systems that cannot isolate, and for runners that are trusted like the service itself.
    job_isolation: Literal["full", "limits"] = "full"
    # The Ray cluster on whose nodes jobs run, as Ray writes it (docs/training-at-scale.md); on this machine if empty.
    ray_address: Annotated[str, Field(max_length=256)] = ""
    # What an hour of a job costs, by its kind, as JSON: {"train": 2.5, "predict": 0.5}.
    job_prices: dict[_JobKind, Annotated[float, Field(ge=0, le=1e6)]] = Field(default_factory=dict)

    @property
    def slots(self) -> int:
        """How many jobs run at a time."""
        return self.job_slots or os.cpu_count() or 1

    @property
    def weights_dir(self) -> Path:
        """The folder of the local store that is used if no other is named."""
        return self.data_dir / "weights"

    def stores_configuration(self) -> StoresConfiguration:
        """Where weights are kept. Raises ConfigurationError."""
        if self.stores is None:
            return StoresConfiguration.only_local(self.weights_dir)
        return configuration.load(self.stores, self.weights_dir.absolute())
