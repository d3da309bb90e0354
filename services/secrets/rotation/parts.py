"""The parts of rotation, wired: `bootstrap` adds them to the service."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from services.secrets.rotation.leases import Leases
from services.secrets.rotation.policies import RotationPolicies
from services.secrets.rotation.registry import Rotators
from services.secrets.rotation.rotator import Surroundings
from services.secrets.rotation.runner import Runner
from services.secrets.rotation.runs import Run
from services.secrets.rotation.targets import Targets
from services.secrets.rotation.worker import Worker
from services.secrets.settings import SecretsSettings
from services.secrets.vault import Vault
from services.shared.database import Database


@dataclass(frozen=True)
class RotationParts:
    """What serves rotations, and what does them."""

    policies: RotationPolicies
    runner: Runner
    worker: Worker

    @classmethod
    def of(
        cls,
        settings: SecretsSettings,
        database: Database,
        vault: Vault,
        clock: Callable[[], datetime],
        ended: Callable[[Run], None] = lambda _run: None,
    ) -> "RotationParts":
        """`ended` is told of each rotation that ended."""
        surroundings = Surroundings(
            randomness=random.SystemRandom(),
            clock=clock,
            targets=Targets.parse(settings.rotation_targets),
            url=settings.public_url,
            aws_endpoint=settings.rotation_aws_endpoint,
        )
        rotators = Rotators(surroundings)
        runner = Runner(vault, rotators, Leases(database, clock), clock, ended)
        worker = Worker(runner.work)
        return cls(RotationPolicies(database, rotators, clock, worker.wake), runner, worker)
