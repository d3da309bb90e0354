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
from services.secrets.rotation.runs import Run, State
from services.secrets.rotation.targets import Targets
from services.secrets.rotation.worker import Worker
from services.secrets.settings import SecretsSettings
from services.secrets.vault import Vault
from services.shared.audit.event import Event
from services.shared.audit.trail import Trail
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
        trail: Trail,
        clock: Callable[[], datetime],
    ) -> "RotationParts":
        """Each rotation that ended is an event of the trail; while that can't be written, none begins."""
        surroundings = Surroundings(
            randomness=random.SystemRandom(),
            clock=clock,
            targets=Targets.parse(settings.rotation_targets),
            url=settings.public_url,
            aws_endpoint=settings.rotation_aws_endpoint,
        )
        rotators = Rotators(surroundings)
        runner = Runner(vault, rotators, Leases(database, clock), clock, lambda run: trail.record(_event(run)))

        def work() -> bool:
            trail.check()
            return runner.work()

        worker = Worker(work)
        return cls(RotationPolicies(database, vault, rotators, clock, worker.wake), runner, worker)


def _event(run: Run) -> Event:
    return Event(
        kind="secrets.rotation",
        principal=run.requested_by,
        method="strongroom.secrets.v1.SecretRotationService/RotateSecret",
        resource=f"secrets/{run.secret_name}",
        outcome="allowed" if run.state is State.DONE else "failed",
        reason=run.reason,
        request_id=run.id,
    )
