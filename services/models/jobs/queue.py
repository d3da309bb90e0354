"""The queue of jobs: submitted, claimed, kept by lease, ended. Every change is one transaction; the row decides.

Of several workers one gets a job: on PostgreSQL by `FOR UPDATE SKIP LOCKED`, on SQLite by its one writer. Who holds a
job says so again before the lease ends; what nobody holds any more is claimed anew. Only the holder ends a running job.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.models import ml_tables as m
from services.models.managers import hold
from services.shared.database import Database
from services.shared.errors import NotFound, ResourceExhausted
from services.shared.identity import Principal

PENDING, RUNNING, CANCELING = "pending", "running", "canceling"
COMPLETED, FAILED, CANCELED = "completed", "failed", "canceled"
ENDED = (COMPLETED, FAILED, CANCELED)
TRAIN, PREDICT = "train", "predict"

LEASE = timedelta(seconds=15)
# How often a job is begun, whatever ends its process or service; and how often its process may die.
_MOST_ATTEMPTS = 5
_MOST_CRASHES = 2
# Jobs that wait; half of them may be of one caller.
MOST_PENDING = 10_000
_PAGE = 100
_MOST_LINES = 1000
_LINE = 1024


class JobNotFound(NotFound):
    """There is no job of that id."""

    reason = "JOB_NOT_FOUND"


class QueueFull(ResourceExhausted):
    """As many jobs wait as may."""

    reason = "QUEUE_FULL"


class LeaseLost(Exception):
    """Somebody else has the job, or it has been told to end: what was done for it is worth nothing."""


@dataclass(frozen=True)
class Submission:
    """What is to be done, for whom."""

    id: str
    manager_id: str
    kind: str
    config_id: str
    model_artifact_id: str
    artifact_id: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True)
class Job:
    """A job; `seconds` that processes ran for it, `reason` why it failed, `progress` 0 to 1."""

    id: str
    manager_id: str
    kind: str
    state: str
    config_id: str
    model_artifact_id: str
    artifact_id: str
    created_by: str
    caller_name: str
    credential_id: str
    key_prefix: str
    attempts: int
    crashes: int
    progress: float
    result: str
    reason: str
    milliseconds: int
    cost: float
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def caller(self) -> Principal:
        """Who submitted it, without what they may do."""
        return Principal(self.created_by, self.caller_name, self.credential_id, self.key_prefix)


@dataclass(frozen=True)
class Claim:
    """A job that this holder has, and what its process is told and given."""

    job: Job
    holder: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: one of ENDED, in a sentence, and for programs."""

    state: str
    result: str
    reason: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a job's log."""

    number: int
    written_at: datetime
    text: str


class Queue:
    """Jobs as rows.

    Args:
        lease: for how long a holder that says nothing more is taken for alive.
        most_pending: jobs that may wait.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        lease: timedelta = LEASE,
        most_pending: int = MOST_PENDING,
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease = lease
        self._most_pending = most_pending

    def submit(self, job: Submission, caller: Principal) -> Job:
        """Queues a job. Raises ManagerNotFound, QueueFull."""
        now = self._clock()
        row = {
            **{name: getattr(job, name) for name in Submission.__dataclass_fields__},
            "state": PENDING,
            "created_by": caller.id,
            "caller_name": caller.name[:255],
            "credential_id": caller.credential_id,
            "key_prefix": caller.key_prefix[:64],
            **dict.fromkeys(("attempts", "crashes", "progress", "milliseconds", "cost"), 0),
            **dict.fromkeys(("result", "reason"), ""),
            "created_at": now,
            "updated_at": now,
        }
        with self._database.write() as connection:
            hold(connection, job.manager_id)
            if _is_waiting(connection, self._most_pending, _c.state == PENDING):
                raise QueueFull(f"{self._most_pending} jobs are waiting. Try again later.", retry_after=10.0)
            of_one = self._most_pending // 2
            if _is_waiting(connection, of_one, _c.state == PENDING, _c.created_by == caller.id):
                raise QueueFull(f"{of_one} of your jobs are waiting. Try again later.", retry_after=10.0)
            connection.execute(sa.insert(m.jobs).values(row))
            return _find(connection, job.id)

    def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        with self._database.read() as connection:
            return _find(connection, job_id)

    def making(self, artifact_id: str) -> Job | None:
        """The job that makes, or should have made, an artifact."""
        with self._database.read() as connection:
            row = connection.execute(_SELECT.where(_c.artifact_id == artifact_id)).one_or_none()
        return None if row is None else Job(*row)

    def list(
        self, page_size: int, page_token: str, visible: Callable[[str], bool], state: str = ""
    ) -> tuple[list[Job], str]:
        """A page of jobs, the newest first, of those that are `visible`, and the token of the next."""
        size = page_size or _PAGE
        query = _SELECT.order_by(_c.id.desc()).limit(size)
        query = query.where(_c.id < page_token) if page_token else query
        query = query.where(_c.state == state) if state else query
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        token = rows[-1].id if len(rows) == size else ""
        return [Job(*row) for row in rows if visible(row.id)], token

    def claim(self, holder: str) -> Claim | None:
        """The job that waited longest, or one whose holder is gone; None if there is none.

        One that was begun too often, or that was to be canceled, ends here.
        """
        now = self._clock()
        lost = sa.and_(_c.state.in_((RUNNING, CANCELING)), _c.leased_until < now)
        query = _SELECT.add_columns(_c.sealed).where(sa.or_(_c.state == PENDING, lost)).order_by(_c.id).limit(1)
        with self._database.write() as connection:
            row = connection.execute(query.with_for_update(skip_locked=True)).one_or_none()
            while row is not None:
                job = Job(*row[:-1])
                outcome = _hopeless(job)
                if outcome is None:
                    begun = {"state": RUNNING, "holder": holder, "leased_until": now + self._lease}
                    begun |= {"attempts": job.attempts + 1, "started_at": job.started_at or now, "updated_at": now}
                    connection.execute(sa.update(m.jobs).where(_c.id == job.id).values(begun))
                    return Claim(_find(connection, job.id), holder, row.sealed)
                _end(connection, job.id, outcome, now, job.milliseconds, job.cost)
                row = connection.execute(query.with_for_update(skip_locked=True)).one_or_none()
        return None

    def renew(self, claim: Claim, progress: float, lines: Sequence[str]) -> None:
        """Says that the holder is at it still, and what it has got to. Raises LeaseLost."""
        now = self._clock()
        with self._database.write() as connection:
            job = _held(connection, claim)
            if job.state == CANCELING:
                raise LeaseLost
            values: dict[str, Any] = {"leased_until": now + self._lease}
            if lines or progress != job.progress:
                values |= {"progress": progress, "updated_at": now}
                _write_lines(connection, job.id, lines, now)
            connection.execute(sa.update(m.jobs).where(_c.id == job.id).values(values))

    def wanted(self, claim: Claim) -> bool:
        """Whether the holder should go on: a point read, so that cancelling takes no time."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(_c.state, _c.holder).where(_c.id == claim.job.id)).one_or_none()
        return row is not None and row.state == RUNNING and row.holder == claim.holder

    def check(self, claim: Claim) -> None:
        """Raises LeaseLost unless the holder has the job for some time yet."""
        c = sa.select(_c.id).where(
            _c.id == claim.job.id, _c.holder == claim.holder, _c.state == RUNNING, _c.leased_until > self._clock()
        )
        with self._database.read() as connection:
            if connection.scalar(c) is None:
                raise LeaseLost

    def end(
        self,
        claim: Claim,
        outcome: Outcome,
        milliseconds: int,
        cost: float,
        lines: Sequence[str] = (),
        within: Callable[[sa.Connection], object] = lambda _: None,
    ) -> Job:
        """Ends a job that the holder has. What it made is added by `within`, in the same transaction.

        One that was to be canceled is canceled, whatever came of it. Raises LeaseLost, and what `within` raises.
        """
        now = self._clock()
        with self._database.write() as connection:
            job = _held(connection, claim)
            if job.state == CANCELING:
                outcome = Outcome(CANCELED, "Canceled")
            if outcome.state == COMPLETED:
                within(connection)
            _write_lines(connection, job.id, lines, now)
            _end(connection, job.id, outcome, now, job.milliseconds + milliseconds, job.cost + cost)
            return _find(connection, job.id)

    def give_back(
        self, claim: Claim, milliseconds: int, cost: float, *, crashed: bool, lines: Sequence[str] = ()
    ) -> Job:
        """Lets the next one have the job: this holder stops, or the job's process died. Raises LeaseLost.

        One whose process has died too often fails.
        """
        now = self._clock()
        with self._database.write() as connection:
            job = _held(connection, claim)
            _write_lines(connection, job.id, lines, now)
            crashes = job.crashes + crashed
            spent = job.milliseconds + milliseconds, job.cost + cost
            if job.state == CANCELING:
                _end(connection, job.id, Outcome(CANCELED, "Canceled"), now, *spent)
            elif crashes >= _MOST_CRASHES:
                message = "The job's process was killed twice, by lack of memory or by hand."
                outcome = Outcome(FAILED, message, "WORKER_KILLED")
                _end(connection, job.id, outcome, now, *spent)
            else:
                again: dict[str, Any] = {
                    "state": PENDING,
                    "holder": None,
                    "leased_until": None,
                    "updated_at": now,
                    "progress": 0,
                }
                again |= {"milliseconds": spent[0], "cost": spent[1], "crashes": crashes}
                # Not the job's fault: a service may be restarted as often as one likes.
                again |= {} if crashed else {"attempts": job.attempts - 1}
                connection.execute(sa.update(m.jobs).where(_c.id == job.id).values(again))
            return _find(connection, job.id)

    def cancel_or_delete(self, job_id: str) -> None:
        """Cancels a job that has not ended, deletes one that has. Raises JobNotFound."""
        now = self._clock()
        with self._database.write() as connection:
            job = _find(connection, job_id, lock=True)
            state = job.state
            this = sa.update(m.jobs).where(_c.id == job_id)
            if state == PENDING:
                # It may have run before, and have been given back.
                _end(connection, job_id, Outcome(CANCELED, "Canceled"), now, job.milliseconds, job.cost)
            elif state == RUNNING:
                connection.execute(this.values(state=CANCELING, updated_at=now))
            elif state in ENDED:
                connection.execute(sa.delete(m.jobs).where(_c.id == job_id))

    def lines(self, job_id: str, after: int = 0) -> Sequence[Line]:
        """What a job has written, from the line after that number on."""
        c = m.job_lines.c
        query = sa.select(c.number, c.written_at, c.text).where(c.job == job_id, c.number > after).order_by(c.number)
        with self._database.read() as connection:
            return [Line(*row) for row in connection.execute(query)]


def _is_waiting(connection: sa.Connection, count: int, *which: sa.ColumnElement[bool]) -> bool:
    """Whether there are so many such jobs."""
    return connection.scalar(sa.select(_c.id).where(*which).limit(1).offset(count - 1)) is not None


def _hopeless(job: Job) -> Outcome | None:
    """How a job ends that is found without a holder, unless it is begun again."""
    if job.state == CANCELING:
        return Outcome(CANCELED, "Canceled")
    if job.attempts >= _MOST_ATTEMPTS:
        return Outcome(FAILED, f"The service that ran the job was lost {job.attempts} times.", "WORKER_LOST")
    return None


def _held(connection: sa.Connection, claim: Claim) -> Job:
    """The row, locked. Raises LeaseLost."""
    query = _SELECT.where(_c.id == claim.job.id, _c.holder == claim.holder, _c.state.in_((RUNNING, CANCELING)))
    row = connection.execute(query.with_for_update()).one_or_none()
    if row is None:
        raise LeaseLost
    return Job(*row)


def _find(connection: sa.Connection, job_id: str, *, lock: bool = False) -> Job:
    query = _SELECT.where(_c.id == job_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise JobNotFound(f"There is no job '{job_id}'.", job=job_id)
    return Job(*row)


def _end(
    connection: sa.Connection, job_id: str, outcome: Outcome, now: datetime, milliseconds: int, cost: float
) -> None:
    """What the job was given goes with its end."""
    values: dict[str, Any] = {"state": outcome.state, "result": outcome.result[:1024], "reason": outcome.reason}
    values |= {"sealed": None, "holder": None, "leased_until": None, "finished_at": now, "updated_at": now}
    values |= {"milliseconds": milliseconds, "cost": cost}
    values |= {"progress": 1.0} if outcome.state == COMPLETED else {}
    connection.execute(sa.update(m.jobs).where(_c.id == job_id).values(values))


def _write_lines(connection: sa.Connection, job_id: str, lines: Sequence[str], now: datetime) -> None:
    """Adds lines; of more than a thousand the oldest go."""
    if not lines:
        return
    c = m.job_lines.c
    last = connection.scalar(sa.select(sa.func.max(c.number)).where(c.job == job_id)) or 0
    rows = [
        {"job": job_id, "number": number, "written_at": now, "text": text[:_LINE]}
        for number, text in enumerate(lines, last + 1)
    ]
    connection.execute(sa.insert(m.job_lines), rows[-_MOST_LINES:])
    connection.execute(sa.delete(m.job_lines).where(c.job == job_id, c.number <= last + len(lines) - _MOST_LINES))


_c = m.jobs.c
_SELECT = sa.select(*(_c[name] for name in Job.__dataclass_fields__))
