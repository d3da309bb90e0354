"""Rotations without a service around them, with a clock that the test moves; and a process in which they die.

`python -m tests.rotating CONTROL` reads orders as JSON, a line each, forks a process for each that does what is due and
kills itself at the step it is told (`tests/mortal_process.py`), and writes how that ended.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar

from services.secrets import bootstrap
from services.secrets.rotation.leases import LEASE, Leases
from services.secrets.rotation.policies import Plan, RotationPolicies, RotationStatus
from services.secrets.rotation.registry import Rotators
from services.secrets.rotation.rotator import Data, Rotation, Rotator, Surroundings, TargetRefuses
from services.secrets.rotation.runner import Runner
from services.secrets.rotation.runs import Run
from services.secrets.rotation.targets import Targets
from services.secrets.vault import Vault
from services.shared.database import Database
from tests.keyrings import keyring
from tests.stack import inherited

MIGRATIONS = Path(bootstrap.__file__).parent / "migrations"
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Rotating:
    """Secrets, how they rotate, and who rotates them; another one on the same database is another replica."""

    database: Database
    now: datetime = BEGINNING
    aws_endpoint: str = ""
    url: str = ""
    ended: list[Run] = field(default_factory=list)
    read: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        targets = Targets.parse("127.0.0.1:*")
        surroundings = Surroundings(random.SystemRandom(), self.clock, targets, self.url, self.aws_endpoint)
        found = [*entry_points(group="strongroom.rotators"), *OF_TESTS]
        self.rotators = Rotators(surroundings, found)
        self.vault = Vault(self.database, keyring(self.database, self.clock), self.clock)
        self.vault.prepare()
        self.policies = RotationPolicies(self.database, self.vault, self.rotators, self.clock, lambda: None)
        leases = Leases(self.database, self.clock)
        self.runner = Runner(self.vault, self.rotators, leases, self.clock, self.ended.append, self.reading)

    @classmethod
    def open(cls, url: str, **fields: Any) -> "Rotating":
        return cls(Database.open(url, service="secrets", migrations=MIGRATIONS), **fields)

    def clock(self) -> datetime:
        return self.now

    def reading(self, run: Run, name: str) -> None:
        self.read.append((run.secret_name, name))

    def plan(
        self, name: str, rotator: str, options: Mapping[str, Any] | None = None, schedule: str = "", grace: int = 86400
    ) -> RotationStatus:
        plan = Plan(rotator, options or {}, schedule, "UTC", timedelta(seconds=grace))
        return self.policies.set(name, plan, "key:owner", readable=lambda _name: True)

    def later(self, **by: float) -> int:
        """So much later, everything that is due is done; how many secrets were worked on."""
        self.now += timedelta(**by)
        done = 0
        while self.runner.work():
            done += 1
            assert done < 50, "it never ends"
        return done

    def rotate(self, name: str) -> RotationStatus:
        """Rotates a secret now."""
        self.policies.request(name, "key:asker")
        self.later(seconds=1)
        return self.policies.get(name)

    def take_over(self) -> None:
        """As another replica does once the lease of one that died has run out."""
        self.later(seconds=LEASE.total_seconds() + 1)

    def value(self, name: str, **which: Any) -> dict[str, Any]:
        return dict(self.vault.get(name, **which).data)

    def version(self, name: str) -> int:
        return self.vault.get(name).about.version


class Recording(Rotator):
    """A rotator whose target is a list; options say at which step it fails, or what it does there."""

    calls: ClassVar[list[tuple[str, str]]] = []
    hooks: ClassVar[dict[str, Callable[[], None]]] = {}

    def __init__(self, _surroundings: Surroundings) -> None:
        pass

    def check(self, options: Data) -> frozenset[str]:
        return frozenset(options.get("reads", ()))

    def propose(self, rotation: Rotation) -> Data:
        self._step("propose", rotation, rotation.current)
        return {**rotation.current, "password": f"{rotation.id}-new"}

    def apply(self, rotation: Rotation, pending: Data) -> None:
        self._step("apply", rotation, pending)

    def test(self, rotation: Rotation, pending: Data) -> None:
        self._step("test", rotation, pending)

    def rollback(self, rotation: Rotation, pending: Data | None) -> None:
        self._step("rollback", rotation, pending or {})

    def retire(self, rotation: Rotation, previous: Data) -> None:
        self._step("retire", rotation, previous)

    def _step(self, step: str, rotation: Rotation, data: Data) -> None:
        self.calls.append((rotation.secret, step))
        for name in rotation.options.get("reads", ()):
            rotation.read(name)
        if hook := self.hooks.get(rotation.secret):
            hook()
        if rotation.options.get("fails") == step:
            raise TargetRefuses("It does not work.")
        if rotation.options.get("breaks") == step:
            raise RuntimeError(f"with {data.get('password')} in its text")


OF_TESTS = [EntryPoint("recording", "tests.rotating:Recording", "strongroom.rotators")]


@contextmanager
def dying(folder: Path) -> Iterator[Callable[..., str | None]]:
    """A function that does what is due in a process that dies at a step: what it was about to do, None if it lived."""
    from tests.mortal_process import Control

    control = Control.make(folder / "control")
    environment = inherited()
    command = [sys.executable, "-m", "tests.rotating", str(folder / "control")]
    repository = Path(__file__).parents[1]
    with (folder / "dying.log").open("wb") as log:
        launcher = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=repository, env=environment
        )

    def work(url: str, now: datetime, step: int, **fields: Any) -> str | None:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        order = {"url": url, "now": now.isoformat(), "step": step, "fields": fields}
        launcher.stdin.write(json.dumps(order).encode() + b"\n")
        launcher.stdin.flush()
        status = json.loads(launcher.stdout.readline() or "null")
        assert status in (0, 9), (folder / "dying.log").read_text()[-3000:]
        return control.last_step if status else None

    try:
        yield work
    finally:
        launcher.kill()
        launcher.communicate()


def main() -> None:
    from tests.mortal_process import Control, watch

    control = Control(Path(sys.argv[1]))
    watch(control)
    while line := sys.stdin.buffer.raw.readline():  # type: ignore[attr-defined]
        child = os.fork()
        if child == 0:
            order = json.loads(line)
            made = Rotating.open(order["url"], now=datetime.fromisoformat(order["now"]), **order["fields"])
            control.die_at(order["step"])
            while made.runner.work():
                pass
            control.die_at(0)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        os.write(1, f"{status}\n".encode())


if __name__ == "__main__":
    main()
