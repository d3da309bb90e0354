"""Which secret rotates how, as its owners see it: set, shown, asked for. `runner` does the work."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.secrets.rotation import runs
from services.secrets.rotation.leases import wake
from services.secrets.rotation.registry import Rotators
from services.secrets.rotation.runs import Run, State
from services.secrets.rotation.schedule import Schedule
from services.secrets.rotation_tables import rotations
from services.secrets.tables import secrets
from services.secrets.vault import Vault
from services.secrets.vault_errors import SecretNotFound, VersionNotPending
from services.shared.database import Database
from services.shared.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionMissing

# Characters of the options as JSON.
_MAX_OPTIONS = 8192
# Rows read at a time while a listing is filtered.
_BATCH = 200


class RotationNotConfigured(NotFound):
    reason = "ROTATION_NOT_CONFIGURED"

    def __init__(self, name: str) -> None:
        super().__init__(f"Secret {name!r} does not rotate. Set up its rotation first.", secret=name)


class RotationRunning(FailedPrecondition):
    reason = "ROTATION_RUNNING"

    def __init__(self, name: str) -> None:
        super().__init__(f"Secret {name!r} is being rotated. Wait until that has ended.", secret=name)


@dataclass(frozen=True)
class Plan:
    """How a secret shall rotate; without a schedule when it is asked for."""

    rotator: str
    options: Mapping[str, Any]
    schedule: str = ""
    time_zone: str = "UTC"
    grace: timedelta = timedelta(days=1)


@dataclass(frozen=True)
class RotationStatus:
    """How a secret rotates, and what became of it.

    Args:
        running: the rotation that goes on; None most of the time.
        latest: the last that ended.
        failures: in a row.
        error: what keeps it from going on, such as a server that does not answer.
    """

    secret_name: str
    plan: Plan
    next_run_at: datetime | None
    retry_at: datetime | None
    requested: bool
    failures: int
    error: str
    running: Run | None
    latest: Run | None
    last_success_at: datetime | None
    created_by: str
    updated_at: datetime


class RotationPolicies:
    """Sets, shows and removes rotations, and takes requests.

    Args:
        wake: tells who does the work that there is some.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        rotators: Rotators,
        clock: Callable[[], datetime],
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._vault = vault
        self._rotators = rotators
        self._clock = clock
        self._wake = wake

    def set(self, name: str, plan: Plan, author: str, readable: Callable[[str], bool]) -> RotationStatus:
        """Makes a secret rotate, or changes how.

        Args:
            readable: whether the author may read another secret: what the options name is read on its behalf.

        Raises:
            NotFound: SECRET_NOT_FOUND.
            InvalidArgument: ROTATOR_UNKNOWN, ROTATION_OPTIONS_INVALID, SCHEDULE_INVALID.
            FailedPrecondition: ROTATION_TARGET_FORBIDDEN.
            PermissionDenied: PERMISSION_MISSING for a secret that the options name.
        """
        schedule = Schedule.parse(plan.schedule, plan.time_zone) if plan.schedule else None
        for other in sorted(self._rotators.get(plan.rotator).check(plan.options)):
            if not readable(other):
                raise PermissionMissing("secrets.read", f"secrets/{other}")
        options = json.dumps(dict(plan.options), sort_keys=True)
        if len(options) > _MAX_OPTIONS:
            raise InvalidArgument(f"The options have more than {_MAX_OPTIONS} characters.")
        now = self._clock()
        values = {
            "rotator": plan.rotator,
            "options": options,
            "schedule": plan.schedule,
            "time_zone": plan.time_zone,
            "grace_seconds": int(plan.grace.total_seconds()),
            "next_run_at": schedule and schedule.next_after(now),
            "retry_at": None,
            "failures": 0,
            "error": "",
            "created_by": author,
            "updated_at": now,
        }
        with self._database.write() as connection:
            if connection.scalar(sa.select(secrets.c.name).where(secrets.c.name == name).with_for_update()) is None:
                raise SecretNotFound(name)
            this = rotations.c.secret_name == name
            if connection.execute(sa.update(rotations).where(this).values(values)).rowcount == 0:
                connection.execute(sa.insert(rotations).values(secret_name=name, created_at=now, **values))
            wake(connection, name, now)
            return _status(connection, _policy(connection, name))

    def request(self, name: str, author: str) -> RotationStatus:
        """Asks for a rotation now. Raises RotationNotConfigured; RotationRunning if one goes on already."""
        with self._database.write() as connection:
            policy = _policy(connection, name, hold=True)
            if runs.unfinished(connection, name) is not None:
                raise RotationRunning(name)
            this = rotations.c.secret_name == name
            connection.execute(sa.update(rotations).where(this).values(requested_by=author))
            wake(connection, name, self._clock())
            status = _status(connection, _policy(connection, policy.secret_name))
        self._wake()
        return status

    def remove(self, name: str, *, abandon: bool = False) -> None:
        """The secret keeps its value. With `abandon` also in the middle of a rotation, which is given up as it is.

        Raises RotationNotConfigured, RotationRunning.
        """
        with self._database.write() as connection:
            _policy(connection, name, hold=True)
            if not abandon and runs.unfinished(connection, name) is not None:
                raise RotationRunning(name)
            run = runs.give_up(connection, name, self._clock())
        if run is not None and run.version is not None:
            with suppress(VersionNotPending, NotFound):
                self._vault.discard(name, run.version)

    def get(self, name: str) -> RotationStatus:
        """Raises RotationNotConfigured."""
        with self._database.read() as connection:
            return _status(connection, _policy(connection, name))

    def history(self, name: str, limit: int = runs.KEPT) -> list[Run]:
        """The rotations of a secret, the newest first; none if there were none."""
        with self._database.read() as connection:
            return runs.latest(connection, name, limit=limit)

    def listing(self, *, visible: Callable[[str], bool], after: str = "", limit: int = 100) -> list[RotationStatus]:
        """At most `limit` in order of their names, from behind `after`: those that are `visible`."""
        page: list[RotationStatus] = []
        with self._database.read() as connection:
            for policy in _policies_after(connection, after):
                if visible(policy.secret_name):
                    page.append(_status(connection, policy))
                if len(page) == limit:
                    break
        return page


def _policy(connection: Connection, name: str, *, hold: bool = False) -> Row[Any]:
    wanted = sa.select(rotations).where(rotations.c.secret_name == name)
    row = connection.execute(wanted.with_for_update() if hold else wanted).one_or_none()
    if row is None:
        raise RotationNotConfigured(name)
    return row


def _policies_after(connection: Connection, after: str) -> Iterator[Row[Any]]:
    while True:
        wanted = sa.select(rotations).where(rotations.c.secret_name > after).order_by(rotations.c.secret_name)
        rows = connection.execute(wanted.limit(_BATCH)).all()
        yield from rows
        if len(rows) < _BATCH:
            return
        after = rows[-1].secret_name


def _status(connection: Connection, policy: Row[Any]) -> RotationStatus:
    name = policy.secret_name
    ended = [run for run in runs.latest(connection, name, limit=2) if run.state in runs.ENDED]
    done = runs.latest(connection, name, limit=1, state=State.DONE)
    grace = timedelta(seconds=policy.grace_seconds)
    return RotationStatus(
        secret_name=name,
        plan=Plan(policy.rotator, json.loads(policy.options), policy.schedule, policy.time_zone, grace),
        next_run_at=policy.next_run_at,
        retry_at=policy.retry_at,
        requested=policy.requested_by is not None,
        failures=policy.failures,
        error=policy.error,
        running=runs.unfinished(connection, name),
        latest=ended[0] if ended else None,
        last_success_at=done[0].finished_at if done else None,
        created_by=policy.created_by,
        updated_at=policy.updated_at,
    )
