"""Submits trainings and predictions: what can be told at once is told at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.models.artifacts import ArtifactNotFound
from services.models.jobs.configs import Config, Configs
from services.models.jobs.data_tables import ColumnsMissing, DataTable, TableInvalid, TableTooLarge
from services.models.jobs.execution import given_name
from services.models.jobs.ml_artifacts import MlArtifact, MlArtifacts
from services.models.jobs.payloads import Payloads
from services.models.jobs.queue import PREDICT, TRAIN, Job, Queue, Submission
from services.models.jobs.runner_catalog import BUILT_IN, RunnerCatalog
from services.models.jobs.stored_tables import Address, StoredTable, StoredTables, TableAddressInvalid
from services.models.managers import DEFAULT_MANAGER
from services.models.versions import Versions
from services.shared.errors import FailedPrecondition
from services.shared.identity import Principal

# What Strongroom reads of a config's data; the runner gets the others, and `features` and `target` resolved.
_OURS = ("runner", "manager_id", "model_name", "timeout_seconds")
_SAMPLE = "sample_0"
# Values of predictions that stand in an artifact; what is more goes to a file.
_MOST_PREDICTED = 1_000_000

Given = DataTable | StoredTable


class ArtifactNoModel(FailedPrecondition):
    """The artifact is no trained model."""

    reason = "ARTIFACT_NO_MODEL"


@dataclass(frozen=True)
class _Wanted:
    """What a job's process is told and given, and what is said about what it makes."""

    task: Mapping[str, Any]
    timeout_seconds: int
    rest: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {"task": self.task, "timeout_seconds": self.timeout_seconds, **self.rest}


class Submissions:
    """Checks what is submitted, and queues it.

    Args:
        timeout: seconds that a job may take, unless its config says less.
        wake: tells the workers of this process that there is something to do.
    """

    def __init__(
        self,
        configs: Configs,
        artifacts: MlArtifacts,
        versions: Versions,
        payloads: Payloads,
        queue: Queue,
        runners: RunnerCatalog,
        tables: StoredTables,
        timeout: int,
        new_id: Callable[[], str],
        wake: Callable[[], None],
    ) -> None:
        self._configs = configs
        self._artifacts = artifacts
        self._versions = versions
        self._payloads = payloads
        self._queue = queue
        self._runners = runners
        self._tables = tables
        self._timeout = timeout
        self._new_id = new_id
        self._wake = wake

    def train(self, caller: Principal, config_id: str, data: DataTable | str) -> Job:
        """Queues a training; of `data` that is kept in a file its address is given.

        Raises what `StoredTables.find` raises, ConfigNotFound, TableInvalid, ColumnsMissing, PermissionMissing,
        RunnerNotFound, ManagerNotFound, QueueFull.
        """
        config = self._configs.get(config_id)
        manager_id, model_name = config.data.get("manager_id", DEFAULT_MANAGER), _model_name(config)
        Address(manager_id, model_name).require(caller, "models.write")
        given = self._given(caller, data, "`data`")
        features, target = _columns(config, given)
        runner = config.data.get("runner", BUILT_IN)
        told = _told(config.data) | {"features": features, "target": target}
        lineage = {
            "config_id": config.id,
            "config": dict(config.data),
            "runner": runner,
            "features": features,
            "target": target,
            "rows": given.count,
            **given.origin(),
        }
        task = {"operation": TRAIN, "runner": self._runners.place(runner), "config": told, "data": given.as_json()}
        wanted = _Wanted(task, self._seconds(config.data), {"model_name": model_name, "lineage": lineage})
        return self._submit(caller, TRAIN, manager_id, wanted, config_id=config.id)

    def predict(
        self,
        caller: Principal,
        model_artifact_id: str,
        historic: DataTable | str,
        future: DataTable | str,
        output: str = "",
    ) -> Job:
        """Queues a prediction, which becomes a file of the model at the address `output` if that is given.

        Raises what `StoredTables.find` raises, ArtifactNotFound, ArtifactNoModel, TableInvalid, TableTooLarge,
        ColumnsMissing, PermissionMissing, VersionNotFound, RunnerNotFound, QueueFull.
        """
        artifact, about = self._model(model_artifact_id)
        Address(artifact.manager_id, artifact.model_name).require(caller, "models.read")
        self._versions.find(artifact.manager_id, artifact.model_name, artifact.version)
        target = _output(caller, output, artifact.manager_id) if output else None
        past, given = self._given(caller, historic, "`historic`"), self._given(caller, future, "`future`")
        features = list(about["features"])
        _check_prediction(past, given, features)
        if target is None and given.count * (len(given.columns) + 1) > _MOST_PREDICTED:
            message = f"These predictions would be more than {_MOST_PREDICTED} values: name an `output` for a file."
            raise TableTooLarge(message)
        config = about["config"]
        told = _told(config) | {"features": features, "target": about["target"]}
        place = self._runners.place(about["runner"])
        tables = {"historic": past.as_json(), "future": given.as_json()}
        task = {"operation": PREDICT, "runner": place, "config": told, "to_file": target is not None, **tables}
        names = {name: getattr(artifact, name) for name in ("manager_id", "model_name", "version")}
        rest = {"model": names, "output": str(target or ""), "rows": given.count}
        wanted = _Wanted(task, self._seconds(config), rest)
        return self._submit(caller, PREDICT, artifact.manager_id, wanted, model_artifact_id=artifact.id)

    def _given(self, caller: Principal, data: DataTable | str, where: str) -> Given:
        """The table, checked. Raises as `StoredTables.find`, TableInvalid."""
        given = self._tables.find(caller, data, where) if isinstance(data, str) else data
        given.check(where)
        return given

    def _submit(
        self,
        caller: Principal,
        kind: str,
        manager_id: str,
        wanted: _Wanted,
        *,
        config_id: str = "",
        model_artifact_id: str = "",
    ) -> Job:
        job_id = self._new_id()
        sealed = self._payloads.seal(manager_id, given_name(job_id), wanted.as_json())
        submission = Submission(job_id, manager_id, kind, config_id, model_artifact_id, self._new_id(), sealed)
        job = self._queue.submit(submission, caller)
        self._wake()
        return job

    def _model(self, artifact_id: str) -> tuple[MlArtifact, dict[str, Any]]:
        """A trained model and what is said about it. Raises ArtifactNotFound, ArtifactNoModel."""
        try:
            artifact, about = self._artifacts.read(artifact_id)
        except ArtifactNotFound:
            if job := self._queue.making(artifact_id):
                message = f"The model '{artifact_id}' is not there yet: its job '{job.id}' is {job.state}."
                raise ArtifactNotFound(message, artifact=artifact_id, job=job.id) from None
            raise
        # Predictions that are a file have a version, and no config of their own.
        if not (artifact.version and artifact.config_id):
            raise ArtifactNoModel(f"The artifact '{artifact_id}' is no trained model.", artifact=artifact_id)
        return artifact, about

    def _seconds(self, config: Mapping[str, Any]) -> int:
        return min(self._timeout, int(config.get("timeout_seconds", self._timeout)))


def _columns(config: Config, data: Given) -> tuple[list[str], str | None]:
    """The columns to learn from and the one to predict. Raises TableInvalid, ColumnsMissing."""
    if not data.columns:
        raise TableInvalid("`data` has no columns.")
    target = config.data.get("target", data.columns[-1])
    features = config.data.get("features") or [name for name in data.columns if name != target]
    data.require("`data`", [*features, *([] if target is None else [target])])
    if target in features:
        raise TableInvalid(f"The column '{target}' is the target and a feature as well.")
    if not features:
        raise ColumnsMissing("`data`", ["a feature"], data.columns)
    if not data.count:
        raise TableInvalid("`data` has no rows to learn from.")
    return list(features), target


def _model_name(config: Config) -> str:
    """Of which model the result is a version: the config's name if a model can be called that, else its id."""
    named = config.data.get("model_name") or config.name
    plain = named.isascii() and all(sign.isalnum() or sign in "._-" for sign in named)
    return str(named) if plain and named not in (".", "..") else config.id


def _check_prediction(historic: Given, future: Given, features: Sequence[str]) -> None:
    """Raises TableInvalid, ColumnsMissing."""
    future.require("`future`", features)
    if _SAMPLE in future.columns:
        raise TableInvalid(f"`future` has a column '{_SAMPLE}': that is the prediction's.")
    # The other columns are handed to the runner as well, and come back beside the prediction.
    future.require("`future`", future.columns)
    if historic.count:
        historic.require("`historic`", [*features, *historic.columns])


def _output(caller: Principal, url: str, manager_id: str) -> Address:
    """Where predictions go: a model, of which they become a version. Raises TableAddressInvalid, PermissionMissing."""
    address = Address.parse(url)
    if address.version or address.manager_id != manager_id:
        message = (
            f"`output` looks like strongroom://{manager_id}/MODEL, in the model's manager; the job names the version."
        )
        raise TableAddressInvalid(message)
    address.require(caller, "models.write")
    return address


def _told(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _OURS}
