"""What tests of training share: a models service whose runners are at hand, and a caller who waits for jobs."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from services.shared.identity import Principal
from strongroom.models.v1 import configs_pb2, jobs_pb2, ml_artifacts_pb2, ml_pb2
from strongroom.models.v1.configs_pb2_grpc import ConfigServiceStub
from strongroom.models.v1.jobs_pb2_grpc import JobServiceStub
from strongroom.models.v1.ml_artifacts_pb2_grpc import MlArtifactServiceStub
from strongroom.models.v1.ml_pb2_grpc import MlServiceStub
from tests.models_installation import Installation, installation
from tests.serving import ADMINISTRATOR

ENDED = ("completed", "failed", "canceled")
WEATHER = ["rainfall", "mean_temperature", "disease_cases"]
CASES = [
    *([100.5, 25.3, 12], [85.2, 27.1, 8], [120.8, 24.5, 15], [95.3, 26.2, 10]),
    *([110.0, 26.0, 13], [75.5, 28.0, 6], [130.2, 23.8, 18], [88.9, 27.5, 9]),
]


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> ml_pb2.Table:
    made = ml_pb2.Table(columns=columns)
    for row in rows:
        made.data.add().extend(row)
    return made


ONE_ROW = table(["x", "y"], [[1, 2]])


@dataclass
class Ml:
    """What one principal can do."""

    made: Installation
    principal: Principal = ADMINISTRATOR
    # Of the service that is asked; the installation's own if empty.
    channel: grpc.Channel | None = None

    def __post_init__(self) -> None:
        channel = self.channel or self.made.channel
        self.configs, self.jobs = ConfigServiceStub(channel), JobServiceStub(channel)
        self.ml, self.artifacts = MlServiceStub(channel), MlArtifactServiceStub(channel)

    def call(self, method: Any, request: Any, timeout: float = 60) -> Any:
        return method(request, metadata=self.made.tokens.metadata("models", self.principal), timeout=timeout)

    def config(self, data: Mapping[str, Any], name: str = "a config", **fields: str) -> str:
        request = configs_pb2.CreateConfigRequest(name=name, **fields)
        json_format.ParseDict(dict(data), request.data)
        return str(self.call(self.configs.CreateConfig, request).id)

    def train(self, config_id: str, data: ml_pb2.Table = ONE_ROW) -> ml_pb2.TrainResponse:
        return self.call(self.ml.Train, ml_pb2.TrainRequest(config_id=config_id, data=data))

    def predict(self, artifact_id: str, future: ml_pb2.Table, **tables: ml_pb2.Table) -> ml_pb2.PredictResponse:
        request = ml_pb2.PredictRequest(model_artifact_id=artifact_id, future=future, **tables)
        return self.call(self.ml.Predict, request)

    def job(self, job_id: str) -> jobs_pb2.Job:
        return self.call(self.jobs.GetJob, jobs_pb2.GetJobRequest(id=job_id))

    def cancel(self, job_id: str) -> None:
        self.call(self.jobs.DeleteJob, jobs_pb2.DeleteJobRequest(id=job_id))

    def wait(self, job_id: str, *states: str, seconds: float = 60) -> jobs_pb2.Job:
        """The job once it is in one of the states, or has ended."""
        deadline = time.monotonic() + seconds
        while (job := self.job(job_id)).status not in (states or ENDED):
            assert time.monotonic() < deadline, job
            assert job.status not in ENDED, job
            time.sleep(0.05)
        return job

    def trained(self, data: Mapping[str, Any], given: ml_pb2.Table = ONE_ROW) -> jobs_pb2.Job:
        """A training that has ended."""
        return self.wait(self.train(self.config(data), given).job_id)

    def read(self, artifact_id: str) -> ml_artifacts_pb2.MlArtifact:
        return self.call(self.artifacts.GetMlArtifact, ml_artifacts_pb2.GetMlArtifactRequest(id=artifact_id))

    def data(self, artifact_id: str) -> Any:
        return json_format.MessageToDict(self.read(artifact_id).data)

    def log(self, job_id: str) -> list[str]:
        return [line.text for line in self.call(self.jobs.ListJobLog, jobs_pb2.ListJobLogRequest(id=job_id)).lines]

    def predicted(self, artifact_id: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Any]:
        """What is predicted, one for each row."""
        submitted = self.predict(artifact_id, table(columns, rows))
        assert self.wait(submitted.job_id).status == "completed", self.job(submitted.job_id)
        return [row[-1] for row in self.data(submitted.prediction_artifact_id)["predictions"]["data"]]


def install(folder: Path, module: Path, name: str, runner: str) -> None:
    """Puts a module into a folder as an installed package whose entry point is a runner."""
    (folder / module.name).write_text(module.read_text())
    metadata = folder / f"{module.stem}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.stem}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[strongroom.runners]\n{name} = {module.stem}:{runner}\n")


@contextmanager
def with_hostile_runner(folder: Path, database_url: str = "", **options: Any) -> Iterator[Installation]:
    """An installation where the runner of `tests/hostile_runner.py` is installed.

    As in a checkout, its data lies in a folder of the program, which jobs may read.
    """
    install(folder, Path(__file__).with_name("hostile_runner.py"), "hostile", "HostileRunner")
    data = folder / ".strongroom"
    data.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        with installation(data, database_url, **options) as made:
            yield made


def shown(message: Any) -> Any:
    return json.loads(json_format.MessageToJson(message, preserving_proto_field_name=True))
