"""Runs one claimed job: from what it was given, through its process, to what it makes."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from services.models.jobs import ml_artifacts
from services.models.jobs.answers import CredentialRevoked, failure, model_data, predictions, refusal
from services.models.jobs.birth import Nursery
from services.models.jobs.ml_artifacts import MlArtifact
from services.models.jobs.model_stream import ModelStream
from services.models.jobs.payloads import Payloads
from services.models.jobs.process import Process, ProcessKilled, ProcessSettings
from services.models.jobs.queue import COMPLETED, TRAIN, Claim, Job, LeaseLost, Outcome, Queue
from services.models.jobs.runner_catalog import is_built_in
from services.models.reads import Reader
from services.models.receive import FileReceiver, FileTarget
from services.models.versions import Version, Versions
from services.shared.errors import DomainError, NotFound, Unavailable
from services.shared.metering import Meter

MODEL_FILE = "model.skops"
# Seconds between two looks at whether the job is still wanted, and between two renewals of the lease.
_LOOK_SECONDS = 0.25
_RENEW_SECONDS = 2.0
_DONE = {TRAIN: "Training completed successfully", "predict": "Prediction completed successfully"}


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
        revoked: whether a credential was revoked.
        stopping: whether this service ends.
    """

    def __init__(
        self,
        queue: Queue,
        payloads: Payloads,
        weights: Weights,
        nursery: Nursery,
        settings: ProcessSettings,
        tariff: Tariff,
        meter: Meter,
        revoked: Callable[[str], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self._queue = queue
        self._payloads = payloads
        self._weights = weights
        self._nursery = nursery
        self._settings = settings
        self._tariff = tariff
        self._meter = meter
        self._revoked = revoked
        self._clock = clock

    def run(self, claim: Claim, stopping: Callable[[], bool]) -> None:
        """Runs a job to its end, whatever that is. Raises what the database raises; then its lease ends it."""
        attempt = _Attempt(self._queue, claim, stopping, self._revoked)
        crashed = ended = None
        try:
            ended = self._made(claim, attempt)
        except (LeaseLost, ProcessKilled, ServiceStopping) as error:
            # Where it was to be canceled, it is by being given back.
            crashed = isinstance(error, ProcessKilled)
        except Unavailable as error:
            _log.warning("a job waits for what it needs", job=claim.job.id, error=error.message)
            crashed = False
            stopping_or_pause(stopping)
        except Exception as error:
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
        process = Process(
            *(self._nursery, self._settings, given["task"], given["timeout_seconds"]),
            load=is_built_in(given["task"]["runner"]),
        )
        attempt.process = process
        version = None
        if job.kind == TRAIN:
            answer, version = self._train(claim, process, given, attempt)
        else:
            answer = process.run(attempt.watch, self._model(given["model"]))
        if "failed" in answer:
            return None, refusal(answer)
        data = model_data(answer, given, self._clock()) if version else {"predictions": predictions(answer, given)}
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
        name = ml_artifacts.payload_name(job.artifact_id)
        return _Made(artifact, self._payloads.seal(job.manager_id, name, data)), Outcome(COMPLETED, _DONE[job.kind])

    def _train(
        self, claim: Claim, process: Process, given: Mapping[str, Any], attempt: "_Attempt"
    ) -> tuple[dict[str, Any], Version | None]:
        """The process's answer, and the version that it is stored as unless it failed."""
        job = claim.job
        target = FileTarget(job.manager_id, given["model_name"], job.artifact_id, MODEL_FILE)
        self._forget(target)
        storing = ModelStream(lambda body, check: self._weights.files.store(job.created_by, target, body, check)[0])
        try:
            answer = process.run(attempt.watch, sink=storing.put)
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


@dataclass(frozen=True)
class _Made:
    artifact: MlArtifact
    sealed: bytes


class _Attempt:
    """One try at a job, seen by who watches over it."""

    def __init__(
        self, queue: Queue, claim: Claim, stopping: Callable[[], bool], revoked: Callable[[str], bool]
    ) -> None:
        self._queue = queue
        self._claim = claim
        self._stopping = stopping
        self._revoked = revoked
        self._look = self._renewal = 0.0
        self.process: Process | None = None

    @property
    def seconds(self) -> float:
        return self.process.seconds if self.process else 0.0

    def take_lines(self) -> list[str]:
        return self.process.take_lines() if self.process else []

    def watch(self) -> None:
        """Raises LeaseLost, ServiceStopping, CredentialRevoked."""
        now = time.monotonic()
        if self._stopping():
            raise ServiceStopping
        if now < self._look:
            return
        self._look = now + _LOOK_SECONDS
        if self._claim.job.credential_id and self._revoked(self._claim.job.credential_id):
            raise CredentialRevoked
        if not self._queue.wanted(self._claim):
            raise LeaseLost
        if now >= self._renewal:
            self._renewal = now + _RENEW_SECONDS
            assert self.process is not None
            self._queue.renew(self._claim, self.process.progress, self.process.take_lines())


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
