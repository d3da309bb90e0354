"""The steps of a rotation: pending → set → test → current, then the grace of the value before, and its end.

Each step is recorded before the next begins, under a lease. A process that dies leaves a run whose step was begun and
perhaps done; whoever has the lease next does that step again. What is served changes in one place, `Vault.promote`,
and only after the test: a crash anywhere leaves the value before in use, or the new one, tested.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from services.secrets.rotation import runs
from services.secrets.rotation.leases import Lease, LeaseLost, Leases
from services.secrets.rotation.registry import Rotators
from services.secrets.rotation.rotator import Data, Rotation, Rotator
from services.secrets.rotation.runs import Run, State
from services.secrets.rotation.schedule import Schedule
from services.secrets.rotation_tables import rotation_runs, rotations
from services.secrets.vault import Vault
from services.secrets.vault_errors import SecretStageNotFound, VersionMismatch
from services.secrets.vault_records import SecretVersion, Stage
from services.shared.errors import Aborted, DomainError, NotFound, PermissionDenied
from services.shared.ids import new_id

# After one failure, doubled after each further one in a row.
_FIRST_RETRY = timedelta(minutes=1)
_LONGEST_RETRY = timedelta(hours=1)
_MAX_ERROR = 1024

_log = structlog.get_logger()


class ChangedMeanwhile(Aborted):
    reason = "SECRET_CHANGED_MEANWHILE"

    def __init__(self, name: str) -> None:
        super().__init__(f"Secret {name!r} was written while it was rotated: what was written stays.", secret=name)


class RotatorFailed(DomainError):
    """A rotator raised what no rotator should. Its text may hold anything, so it is not shown."""

    reason = "ROTATOR_FAILED"

    def __init__(self, error: Exception) -> None:
        super().__init__(f"The rotator failed ({type(error).__name__}).")


class Runner:
    """Does what is due, one secret after the other; any number of runners in any number of processes may.

    Args:
        ended: is told of each rotation that ended.
        reading: is told before a run reads another secret, named by its options.
    """

    def __init__(
        self,
        vault: Vault,
        rotators: Rotators,
        leases: Leases,
        clock: Callable[[], datetime],
        ended: Callable[[Run], None] = lambda _run: None,
        reading: Callable[[Run, str], None] = lambda _run, _name: None,
    ) -> None:
        self._vault = vault
        self._rotators = rotators
        self._leases = leases
        self._clock = clock
        self._ended = ended
        self._reading = reading

    def work(self) -> bool:
        """Does what has been due longest; False if nothing is."""
        lease = self._leases.claim()
        if lease is None:
            return False
        try:
            self._tend(lease)
        except LeaseLost:
            _log.warning("somebody else took over a rotation", secret=lease.secret_name)
        return True

    def _tend(self, lease: Lease) -> None:
        try:
            run = self._resumed_or_begun(lease)
            while run is not None and run.state not in runs.ENDED:
                run = self._step(lease, run)
            if run is not None:
                self._ended(run)
            self._retire(lease, due_only=True)
        except LeaseLost:
            raise
        except Exception as error:
            self._put_off(lease, _shown(error))
        else:
            self._leases.release(lease, error="")

    def _put_off(self, lease: Lease, error: DomainError) -> None:
        """What can't be done now, such as taking something back on a server that is away, is tried again and again."""
        _log.warning("a rotation waits", secret=lease.secret_name, reason=error.error_reason)
        wake_at = self._clock() + _FIRST_RETRY
        self._leases.release(lease, error=_bounded(error.message), wake_at=wake_at)

    # Beginning.

    def _resumed_or_begun(self, lease: Lease) -> Run | None:
        now = self._clock()
        with self._leases.held(lease) as connection:
            run = runs.unfinished(connection, lease.secret_name)
            policy = connection.execute(sa.select(rotations).where(rotations.c.secret_name == lease.secret_name)).one()
        if run is not None:
            return run
        trigger = _trigger(policy, now)
        if not trigger:
            return None
        # The value before the one in use goes first: a target rarely takes three.
        self._retire(lease, due_only=False)
        self._discard_stray(lease.secret_name)
        current = self._vault.get(lease.secret_name, hidden=True).about.version
        values = {
            "id": new_id(),
            "secret_name": lease.secret_name,
            "rotator": policy.rotator,
            "options": policy.options,
            "grace_seconds": policy.grace_seconds,
            "state": State.CREATE,
            "trigger": trigger,
            "requested_by": policy.requested_by or policy.created_by,
            "base_version": current,
            "error": "",
            "reason": "",
            "started_at": now,
        }
        # However many were missed, this is the one for all of them.
        schedule = Schedule(policy.schedule, policy.time_zone) if policy.schedule else None
        upcoming = schedule and schedule.next_after(now)
        with self._leases.held(lease, next_run_at=upcoming, retry_at=None, requested_by=None) as connection:
            runs.insert(connection, values)
            return runs.unfinished(connection, lease.secret_name)

    def _discard_stray(self, name: str) -> None:
        """No run has begun: what one has staged was staged after it had been given up, and nobody waits for it."""
        with suppress(NotFound):
            stray = self._vault.get(name, stage=Stage.PENDING).about
            if stray.created_by.startswith(runs.AUTHOR):
                self._vault.discard(name, stray.version)

    # Steps.

    def _step(self, lease: Lease, run: Run) -> Run:
        step = {
            State.CREATE: self._create,
            State.SET: self._set,
            State.TEST: self._test,
            State.PROMOTE: self._promote,
            State.ROLLBACK: self._roll_back,
        }[run.state]
        self._renew(lease)
        try:
            return step(lease, run)
        except LeaseLost:
            raise
        except Exception as error:
            if run.state is State.ROLLBACK:
                raise
            shown = _shown(error)
            _log.warning("a rotation is rolled back", secret=run.secret_name, run=run.id, reason=shown.error_reason)
            message, reason = _bounded(shown.message), shown.error_reason
            return self._advance(lease, run, state=State.ROLLBACK, error=message, reason=reason)

    def _create(self, lease: Lease, run: Run) -> Run:
        version = self._staged(run)
        if version is None:
            rotator, rotation = self._rotation(run)
            if run.notes is None:
                notes = dict(rotator.prepare(rotation))
                run = self._advance(lease, run, notes=json.dumps(notes))
                rotation = replace(rotation, notes=notes)
            data = rotator.propose(rotation)
            version = self._vault.stage(run.secret_name, data, run.author)
        return self._advance(lease, run, state=State.SET, version=version.version)

    def _set(self, lease: Lease, run: Run) -> Run:
        rotator, rotation = self._rotation(run)
        rotator.apply(rotation, self._pending(run))
        return self._advance(lease, run, state=State.TEST)

    def _test(self, lease: Lease, run: Run) -> Run:
        rotator, rotation = self._rotation(run)
        rotator.test(rotation, self._pending(run))
        return self._advance(lease, run, state=State.PROMOTE)

    def _promote(self, lease: Lease, run: Run) -> Run:
        assert run.version is not None
        try:
            self._vault.promote(run.secret_name, run.version, expected_version=run.base_version)
        except VersionMismatch:
            raise ChangedMeanwhile(run.secret_name) from None
        now = self._clock()
        return self._advance(
            lease, run, policy={"failures": 0}, state=State.DONE, finished_at=now, retire_at=now + run.grace
        )

    def _roll_back(self, lease: Lease, run: Run) -> Run:
        version = self._staged(run)
        rotator, rotation = self._rotation(run, on_any_version=True)
        if run.notes is not None:
            gone: Data | None = None if run.version is None else {}
            rotator.rollback(rotation, gone if version is None else self._pending(run))
        if version is not None:
            self._vault.discard(run.secret_name, version.version)
        now = self._clock()
        with self._leases.held(lease) as connection:
            this = rotations.c.secret_name == run.secret_name
            policy = connection.execute(sa.select(rotations).where(this)).one()
        failures = policy.failures + 1
        # Who asked for one asks again; a schedule does not wait for its next turn.
        retry_at = now + _backoff(failures) if policy.schedule else None
        policy_changes = {"failures": failures, "retry_at": retry_at}
        return self._advance(lease, run, policy=policy_changes, state=State.ROLLED_BACK, finished_at=now)

    # The end of what was.

    def _retire(self, lease: Lease, *, due_only: bool) -> None:
        with self._leases.held(lease) as connection:
            waiting = runs.in_grace(connection, lease.secret_name)
        for run in waiting:
            if due_only and run.retire_at is not None and run.retire_at > self._clock():
                continue
            self._renew(lease)
            self._end_previous(run)
            self._advance(lease, run, retired_at=self._clock())

    def _end_previous(self, run: Run) -> None:
        try:
            # An expired value still opens what it opened.
            current = self._vault.get(run.secret_name, hidden=True)
            previous = self._vault.get(run.secret_name, run.base_version, hidden=True)
        except NotFound:
            return  # destroyed by hand, or with the secret: no value is left to end
        if current.about.version == run.base_version:
            return  # brought back by hand
        rotator, rotation = self._rotation(run, on_any_version=True)
        rotator.retire(rotation, previous.data)
        self._vault.destroy(run.secret_name, [run.base_version])

    # What the steps stand on.

    def _rotation(self, run: Run, *, on_any_version: bool = False) -> tuple[Rotator, Rotation]:
        """Raises ChangedMeanwhile unless the version in use is the one that the run began with."""
        rotator = self._rotators.get(run.rotator)
        current = self._vault.get(run.secret_name, hidden=True)
        if current.about.version != run.base_version and not on_any_version:
            raise ChangedMeanwhile(run.secret_name)
        named = rotator.check(run.options)

        def read(name: str) -> Data:
            if name not in named:
                raise PermissionDenied(f"The options do not name the secret {name!r}.")
            self._reading(run, name)
            return self._vault.get(name).data

        return rotator, Rotation(
            id=run.id,
            secret=run.secret_name,
            options=run.options,
            current=current.data,
            notes=run.notes or {},
            grace=run.grace,
            read=read,
        )

    def _staged(self, run: Run) -> SecretVersion | None:
        """The pending version, if it is this run's."""
        try:
            pending = self._vault.get(run.secret_name, stage=Stage.PENDING).about
        except NotFound:
            return None
        return pending if pending.created_by == run.author else None

    def _pending(self, run: Run) -> Data:
        pending = self._vault.get(run.secret_name, stage=Stage.PENDING)
        if pending.about.created_by != run.author:
            raise SecretStageNotFound(run.secret_name, Stage.PENDING)
        return pending.data

    def _renew(self, lease: Lease) -> None:
        with self._leases.held(lease):
            pass

    def _advance(self, lease: Lease, run: Run, policy: dict[str, Any] | None = None, **changes: Any) -> Run:
        """Records how far the run is, if the lease still holds."""
        with self._leases.held(lease, **(policy or {})) as connection:
            this = rotation_runs.c.id == run.id
            connection.execute(sa.update(rotation_runs).where(this).values(changes))
            return runs.run_of(connection.execute(sa.select(rotation_runs).where(this)).one())


def _trigger(policy: sa.Row[Any], now: datetime) -> str:
    if policy.requested_by is not None:
        return "request"
    if policy.retry_at is not None and policy.retry_at <= now:
        return "retry"
    return "schedule" if policy.next_run_at is not None and policy.next_run_at <= now else ""


def _backoff(failures: int) -> timedelta:
    return min(_FIRST_RETRY * (1 << min(failures - 1, 16)), _LONGEST_RETRY)


def _shown(error: Exception) -> DomainError:
    return error if isinstance(error, DomainError) else RotatorFailed(error)


def _bounded(message: str) -> str:
    return message[:_MAX_ERROR]
