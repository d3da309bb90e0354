"""Training and prediction, wired."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from sqlalchemy.engine import make_url

from services.models.jobs.configs import Configs
from services.models.jobs.execution import Execution, RevokedSince, Tariff
from services.models.jobs.execution import Weights as JobWeights
from services.models.jobs.following import Follower
from services.models.jobs.links import Place, ProcessSettings
from services.models.jobs.local_processes import LocalProcesses
from services.models.jobs.ml_artifacts import MlArtifacts
from services.models.jobs.payloads import Payloads
from services.models.jobs.process import Process
from services.models.jobs.queue import Queue
from services.models.jobs.runner_catalog import RunnerCatalog, RunnerUnusable
from services.models.jobs.stored_tables import Footers, StoredTables
from services.models.jobs.submission import Submissions
from services.models.jobs.workers import Workers
from services.models.parts import Core, Weights
from services.models.settings import ModelsSettings
from services.shared.configuration import ConfigurationError
from services.shared.ids import new_id
from services.shared.metering import Meter

# Seconds that a runner may take to say what it is.
_DESCRIBE_SECONDS = 60.0
_FOR_GOOD = 10 * 365 * 86_400


@dataclass(frozen=True)
class Training:
    """What servicers of configs, jobs and artifacts ask, and what runs jobs."""

    runners: RunnerCatalog
    configs: Configs
    artifacts: MlArtifacts
    queue: Queue
    follower: Follower
    submissions: Submissions
    workers: Workers
    places: tuple[Place, ...]

    @classmethod
    def of(cls, core: Core, weights: Weights, settings: ModelsSettings, meter: Meter, revoked: RevokedSince) -> Self:
        limits = _limits(settings)
        payloads = Payloads(core.database, core.keys, core.managers)
        queue = Queue(core.database, core.clock, timedelta(seconds=settings.job_lease_seconds))
        local = LocalProcesses(limits)
        place = _cluster(settings.ray_address, limits) if settings.ray_address else local
        runners = RunnerCatalog(lambda runner: _described(local, runner))
        tables = StoredTables(weights.reader, core.versions, core.manifests, Footers(local).describe)
        configs = Configs(core.database, runners, core.clock, new_id)
        artifacts = MlArtifacts(core.database, payloads, core.versions, core.clock, new_id)
        execution = Execution(
            *(queue, payloads, JobWeights(weights.files, weights.reader, core.versions), tables, place),
            tariff=Tariff(dict[str, float](settings.job_prices.items())),
            meter=meter,
            revoked=revoked,
            clock=core.clock,
        )
        workers = Workers(queue, execution, settings.slots, new_id)
        submissions = Submissions(
            *(configs, artifacts, core.versions, payloads, queue, runners, tables),
            timeout=settings.job_timeout_seconds,
            new_id=new_id,
            wake=workers.wake,
        )
        follower = Follower(queue, time.monotonic, time.sleep)
        return cls(runners, configs, artifacts, queue, follower, submissions, workers, (place, local))

    def start(self) -> None:
        self.workers.start()

    def close(self) -> None:
        self.workers.close()
        for place in self.places:
            place.close()


def _cluster(address: str, limits: ProcessSettings) -> Place:
    """Raises ConfigurationError."""
    # Ray ends the process of whoever has not reached the cluster's head for a minute, and this one does more than
    # running jobs (https://github.com/ray-project/ray/issues/45570). Read when Ray is loaded.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(_FOR_GOOD))
    try:
        from services.models.jobs.ray_processes import RayProcesses
    except ImportError:
        message = "STRONGROOM_RAY_ADDRESS needs an SDK that is missing: pip install 'strongroom[ray]'"
        raise ConfigurationError(message) from None
    return RayProcesses(address, limits)


def _limits(settings: ModelsSettings) -> ProcessSettings:
    """What jobs may use. Hidden from them is where this installation keeps anything."""
    database = make_url(settings.database_url.get_secret_value())
    folders = [settings.data_dir, settings.identity_dir, *([settings.stores.parent] if settings.stores else [])]
    folders += [settings.pki_dir] if settings.pki_dir else []
    folders += [store.path for store in settings.stores_configuration().stores.values() if hasattr(store, "path")]
    if database.get_backend_name() == "sqlite" and database.database:
        folders.append(type(settings.data_dir)(database.database).parent)
    return ProcessSettings(
        memory=settings.job_memory_mb << 20,
        folder_bytes=settings.job_folder_mb << 20,
        isolated=settings.job_isolation == "full",
        hidden=tuple(dict.fromkeys(folder.absolute() for folder in folders)),
    )


def _described(place: Place, runner: str) -> Mapping[str, Any]:
    """The schema of a runner, which a process of its own tells. Raises RunnerUnusable."""
    process = Process(place, {"operation": "describe", "runner": runner}, _DESCRIBE_SECONDS, load=False)
    try:
        answer = process.run(lambda: None)
    except Exception as error:
        raise RunnerUnusable(runner, type(error).__name__) from None
    if not isinstance(answer.get("schema"), dict):
        raise RunnerUnusable(runner, str(answer.get("message", "it says nothing")))
    schema: dict[str, Any] = answer["schema"]
    return schema
