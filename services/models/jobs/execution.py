"""Runs one claimed job: from what it was given, through its process, to what it makes."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from services.models.jobs import ml_artifacts
from services.models.jobs.answers import (
    CredentialRevoked,
    failure,
    model_data,
    predictions,
    predictions_file,
    refusal,
)
from services.models.jobs.links import Place, ProcessKilled
from services.models.jobs.ml_artifacts import MlArtifact
from services.models.jobs.model_stream import ModelStream
from services.models.jobs.payloads import Payloads
from services.models.jobs.process import Process, Ranges
from services.models.jobs.queue import COMPLETED, TRAIN, Claim, Job, LeaseLost, Outcome, Queue
from services.models.jobs.runner_catalog import is_built_in
from services.models.jobs.stored_tables import Address, OpenTable, StoredTables
from services.models.reads import Reader
from services.models.receive import FileReceiver, FileTarget
from services.models.runners.frames import FrameBroken
from services.models.versions import Version, Versions
from services.shared.errors import DomainError, NotFound, Unavailable
from services.shared.metering import Meter
from services.shared.status import foreseen

MODEL_FILE, PREDICTIONS_FILE = "model.skops", "predictions.parquet"
# Those of a task that a process may read by ranges.
_TABLES = ("data", "historic", "future")
# Seconds between two looks at whether the job is still wanted, and between two renewals of the lease.
_LOOK_SECONDS = 0.25
_RENEW_SECONDS = 2.0
_DONE = {TRAIN: "Training completed successfully", "predict": "Prediction completed successfully"}

RevokedSince = Callable[[str, datetime], bool]

_log = structlog.get_logger()


class ServiceStopping(Exception):
    """This service ends; another one gets the job."""


@dataclass(frozen=True)
class Weights:
    """Where models come from and go to."""

    files: FileReceiver
    reader: Reader
    versions: Versions


@dataclass(frozen=True)
class Tariff:
    """What a second of a job costs, by its kind; nothing if it is not named."""

    per_hour: Mapping[str, float]

    def cost(self, kind: str, seconds: float) -> float:
        return self.per_hour.get(kind, 0.0) * seconds / 3600


class Execution:
    """Runs jobs.

    Args:
        revoked: whether a credential was revoked at a moment or later. May raise Unavailable.
        stopping: whether this service ends.
    """

    def __init__(
        self,
        queue: Queue,
        payloads: Payloads,
        weights: Weights,
        tables: StoredTables,
        place: Place,
        tariff: Tariff,
        meter: Meter,
        revoked: RevokedSince,
        clock: Callable[[], datetime],
    ) -> None:
        self._queue = queue
        self._payloads = payloads
        self._weights = weights
        self._tables = tables
        self._place = place
        self._tariff = tariff
        self._meter = meter
        self._revoked = revoked
        self._clock = clock

    def run(self, claim: Claim, stopping: Callable[[], bool]) -> None:
        """Runs a job to its end, whatever that is. Raises what the database raises; then its lease ends it."""
        attempt = _Attempt(self._queue, claim, stopping, self._revoked, self._clock)
        crashed = ended = None
        try:
            ended = self._made(claim, attempt)
        except (LeaseLost, ProcessKilled, ServiceStopping) as error:
            # Where it was to be canceled, it is by being given back.
            crashed = isinstance(error, ProcessKilled)
        except Exception as error:
            if isinstance(known := foreseen(error), Unavailable):
                _log.warning("a job waits for what it needs", job=claim.job.id, error=known.message)
                stopping_or_pause(stopping)
            else:
                ended = None, failure(error, claim.job.id)
        self._finish(claim, attempt, ended, crashed=bool(crashed))

    def _finish(
        self, claim: Claim, attempt: "_Attempt", ended: "tuple[_Made | None, Outcome] | None", *, crashed: bool
    ) -> None:
        seconds = attempt.seconds
        cost = self._tariff.cost(claim.job.kind, seconds)
        spent = (round(seconds * 1000), cost)
        try:
            if ended is None:
                job = self._queue.give_back(claim, *spent, crashed=crashed, lines=attempt.take_lines())
            else:
                job = self._end(claim, attempt, ended, spent)
        except LeaseLost:
            return  # it was deleted, or is somebody else's by now
        finally:
            self._meter.count_job(claim.job.caller, claim.job.kind, seconds, cost)
        _tell(job, seconds, cost)

    def _end(
        self, claim: Claim, attempt: "_Attempt", ended: "tuple[_Made | None, Outcome]", spent: tuple[int, float]
    ) -> Job:
        made, outcome = ended
        lines = attempt.take_lines()
        try:
            if made is None:
                return self._queue.end(claim, outcome, *spent, lines)
            artifact, sealed = made.artifact, made.sealed
            job = self._queue.end(
                *(claim, outcome, *spent, lines),
                within=lambda connection: ml_artifacts.insert(connection, artifact, sealed, claim.job.created_by),
            )
        except DomainError as error:  # the model that was predicted with is gone
            job = self._queue.end(claim, failure(error, claim.job.id), *spent, lines)
        if artifact.version and job.state != COMPLETED:
            self._forget(FileTarget(artifact.manager_id, artifact.model_name, artifact.version, MODEL_FILE))
        return job

    def _made(self, claim: Claim, attempt: "_Attempt") -> "tuple[_Made | None, Outcome]":
        job = claim.job
        given = self._payloads.open(job.manager_id, given_name(job.id), claim.sealed)
        task = given["task"]
        attempt.process = Process(self._place, task, given["timeout_seconds"], load=is_built_in(task["runner"]))
        run = partial(attempt.process.run, attempt.watch, ranges=self._ranges(task))
        if job.kind != TRAIN:
            run = partial(run, self._model(given["model"]))
        target = _target(job, given)
        answer, version = self._stored(claim, attempt, target, run) if target else (run(), None)
        if "failed" in answer:
            return None, refusal(answer)
        now = self._clock()
        artifact = MlArtifact(
            id=job.artifact_id,
            manager_id=job.manager_id,
            parent_id=job.model_artifact_id or None,
            level=0,
            model_name=version.model_name if version else "",
            version=version.name if version else "",
            job_id=job.id,
            config_id=job.config_id,
            created_at=job.created_at,
            updated_at=now,
        )
        data = _data(job, answer, given, artifact, now)
        name = ml_artifacts.payload_name(job.artifact_id)
        return _Made(artifact, self._payloads.seal(job.manager_id, name, data)), Outcome(COMPLETED, _DONE[job.kind])

    def _stored(
        self, claim: Claim, attempt: "_Attempt", target: FileTarget, run: Callable[..., dict[str, Any]]
    ) -> tuple[dict[str, Any], Version | None]:
        """The process's answer, and the version that its file is stored as unless it failed."""
        creator = claim.job.created_by
        self._forget(target)
        storing = ModelStream(
            lambda body, check: self._weights.files.store(creator, target, body, check)[0], attempt.watch
        )
        try:
            answer = run(sink=storing.put)
            if "failed" in answer:
                storing.abort()
                return answer, None
            return answer, storing.finish(lambda: self._queue.check(claim))
        except BaseException:
            storing.abort()
            raise

    def _forget(self, target: FileTarget) -> None:
        """Deletes what an attempt has stored that came to nothing, such as one whose service was killed."""
        names = (target.manager_id, target.model_name, target.version)
        with suppress(NotFound):
            self._weights.versions.find(*names)
            self._weights.versions.delete(*names)

    def _model(self, model: Mapping[str, str]) -> Iterator[memoryview]:
        opened = self._weights.reader.open(
            model["manager_id"], model["model_name"], model["version"], MODEL_FILE, 0, None
        )
        return self._weights.reader.read(opened)

    def _ranges(self, task: Mapping[str, Any]) -> Ranges:
        """The task's tables that are kept in files, each opened when it is asked for."""
        opened: dict[str, OpenTable] = {}

        def read(name: str, offset: int, length: int) -> Iterator[memoryview]:
            if name not in opened:
                table = task.get(name)
                if name not in _TABLES or not isinstance(table, dict) or "url" not in table:
                    raise FrameBroken("no table")
                opened[name] = self._tables.open(Address.parse(table["url"]), table.get("sha256", ""))
            return opened[name].read(offset, length)

        return read


def _target(job: Job, given: Mapping[str, Any]) -> FileTarget | None:
    """Where the job's file goes, if it makes one."""
    if job.kind == TRAIN:
        return FileTarget(job.manager_id, given["model_name"], job.artifact_id, MODEL_FILE)
    if given["output"]:
        return FileTarget(job.manager_id, Address.parse(given["output"]).model_name, job.artifact_id, PREDICTIONS_FILE)
    return None


def _data(
    job: Job, answer: Mapping[str, Any], given: Mapping[str, Any], artifact: MlArtifact, now: datetime
) -> dict[str, Any]:
    """What the artifact says."""
    if job.kind == TRAIN:
        return model_data(answer, given, now)
    if artifact.version:
        return {"predictions": predictions_file(answer, given, f"{artifact.url}/{PREDICTIONS_FILE}")}
    return {"predictions": predictions(answer, given)}


@dataclass(frozen=True)
class _Made:
    artifact: MlArtifact
    sealed: bytes


class _Attempt:
    """One try at a job, seen by who watches over it."""

    def __init__(
        self,
        queue: Queue,
        claim: Claim,
        stopping: Callable[[], bool],
        revoked: RevokedSince,
        clock: Callable[[], datetime],
    ) -> None:
        self._queue = queue
        self._claim = claim
        self._stopping = stopping
        self._revoked = revoked
        self._clock = clock
        # The job may have waited for longer than revocations are remembered.
        self._asked = claim.job.created_at
        self._look = self._renewal = 0.0
        self.process: Process | None = None

    @property
    def seconds(self) -> float:
        return self.process.seconds if self.process else 0.0

    def take_lines(self) -> list[str]:
        return self.process.take_lines() if self.process else []

    def watch(self) -> None:
        """Raises LeaseLost, ServiceStopping, CredentialRevoked; Unavailable if that is not known."""
        now = time.monotonic()
        if self._stopping():
            raise ServiceStopping
        if now < self._look:
            return
        self._look = now + _LOOK_SECONDS
        self._check_credential()
        if not self._queue.wanted(self._claim):
            raise LeaseLost
        if now >= self._renewal:
            self._renewal = now + _RENEW_SECONDS
            assert self.process is not None
            self._queue.renew(self._claim, self.process.progress, self.process.take_lines())

    def _check_credential(self) -> None:
        """Whether the submitter has lost theirs since this was asked last, or the job was submitted."""
        asked, now = self._asked, self._clock()
        credential = self._claim.job.credential_id
        if credential and self._revoked(credential, asked):
            raise CredentialRevoked
        self._asked = now


def given_name(job_id: str) -> str:
    """What the input of a job is sealed under."""
    return f"jobs/{job_id}"


def stopping_or_pause(stopping: Callable[[], bool]) -> None:
    """Waits a second for what does not answer, unless the service ends."""
    if not stopping():
        time.sleep(1.0)


def _tell(job: Job, seconds: float, cost: float) -> None:
    _log.info(
        "ml_operation",
        operation=job.kind,
        job=job.id,
        state=job.state,
        reason=job.reason,
        principal=job.created_by,
        key_prefix=job.key_prefix,
        job_seconds=round(seconds, 3),
        cost_estimate=round(cost, 6),
    )
