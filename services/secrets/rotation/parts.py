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
        """Each rotation that ended is an event of the trail, and each secret that one reads beside its own.

        While the trail can't be written, no rotation begins.
        """
        surroundings = Surroundings(
            randomness=random.SystemRandom(),
            clock=clock,
            targets=Targets.parse(settings.rotation_targets),
            url=settings.public_url,
            aws_endpoint=settings.rotation_aws_endpoint,
        )
        rotators = Rotators(surroundings)

        def ended(run: Run) -> None:
            trail.record(_event(run))

        def reading(run: Run, name: str) -> None:
            trail.record(_reading(run, name))

        runner = Runner(vault, rotators, Leases(database, clock), clock, ended, reading)

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


def _reading(run: Run, name: str) -> Event:
    """Who asks the log about a secret finds that a rotation of another one read it."""
    return Event(
        kind="secrets.rotation_read",
        principal=run.requested_by,
        method="strongroom.secrets.v1.SecretService/GetSecret",
        resource=f"secrets/{name}",
        request_id=run.id,
    )
