"""Training, prediction, and what they make.

with Client(api_key=key) as client:
    config = client.configs.create("disease", {"target": "cases"})
    submitted = client.ml.train(config.id, ["rainfall", "cases"], [[100.5, 12], [85.2, 8]])
    assert client.jobs.wait(submitted.job_id).status == "completed"
    predicted = client.ml.predict(submitted.model_artifact_id, ["rainfall"], [[110.0]])
    client.jobs.wait(predicted.job_id)
    client.ml.predictions(predicted.prediction_artifact_id)  # {"columns": [… "sample_0"], "data": [[110.0, 13.9]]}
"""
# Made from strongroom/client/ml.py by `make clients`. Change it there.

from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf import json_format, struct_pb2

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.client.ml import Rows, _table
from strongroom.models.v1 import ml_artifacts_pb2, ml_artifacts_pb2_grpc, ml_pb2, ml_pb2_grpc
from strongroom.retries import Repeat


class Ml:
    """Trains and predicts; shows, adds and deletes artifacts."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._ml = ml_pb2_grpc.MlServiceStub(connection.channel)
        self._artifacts = ml_artifacts_pb2_grpc.MlArtifactServiceStub(connection.channel)

    async def train(
        self, config_id: str, columns: Sequence[str] = (), rows: Rows = (), *, url: str = ""
    ) -> ml_pb2.TrainResponse:
        """Queues a training with these rows, or with the stored Parquet file at `url` (docs/training-at-scale.md).

        Raises NotFound, InvalidArgument.
        """
        request = ml_pb2.TrainRequest(config_id=config_id, data=_table(columns, rows, url))
        return await self._connection.call(self._ml.Train, request)

    async def predict(
        self,
        model_artifact_id: str,
        columns: Sequence[str] = (),
        rows: Rows = (),
        *,
        url: str = "",
        historic: tuple[Sequence[str], Rows] | str | None = None,
        output: str = "",
    ) -> ml_pb2.PredictResponse:
        """Queues a prediction for these rows, or for the stored Parquet file at `url`.

        `historic` are columns and rows of the past, or an address likewise. With an `output`, such as
        `strongroom://default/forecasts`, the predictions become a Parquet file there. Raises as `train`.
        """
        future = _table(columns, rows, url)
        request = ml_pb2.PredictRequest(model_artifact_id=model_artifact_id, future=future, output=output)
        if isinstance(historic, str):
            request.historic.url = historic
        elif historic is not None:
            request.historic.CopyFrom(_table(*historic))
        return await self._connection.call(self._ml.Predict, request)

    async def predictions(self, artifact_id: str) -> dict[str, Any]:
        """The table that a prediction made: `columns` and `data`, or `url` if it is a file.

        Raises NotFound; KeyError for another artifact.
        """
        data: dict[str, Any] = json_format.MessageToDict((await self.get(artifact_id)).data)
        table: dict[str, Any] = data["predictions"]
        return table

    async def list(self) -> AsyncIterator[ml_artifacts_pb2.MlArtifact]:
        """The artifacts that the caller may read, the newest first, without their data."""
        request = ml_artifacts_pb2.ListMlArtifactsRequest()
        async for page in pages(self._connection, self._artifacts.ListMlArtifacts, request):
            for each in page.artifacts:
                yield each

    async def get(self, artifact_id: str) -> ml_artifacts_pb2.MlArtifact:
        request = ml_artifacts_pb2.GetMlArtifactRequest(id=artifact_id)
        return await self._connection.call(self._artifacts.GetMlArtifact, request, repeat=Repeat.SAFE)

    async def tree(self, artifact_id: str) -> ml_artifacts_pb2.MlArtifactTree:
        """An artifact with those below it."""
        request = ml_artifacts_pb2.GetMlArtifactTreeRequest(id=artifact_id)
        return await self._connection.call(self._artifacts.GetMlArtifactTree, request, repeat=Repeat.SAFE)

    async def add(self, data: Any, *, parent_id: str = "", artifact_id: str = "") -> ml_artifacts_pb2.MlArtifact:
        """Adds an artifact with JSON data of the caller's own."""
        value = json_format.ParseDict(data, struct_pb2.Value())
        request = ml_artifacts_pb2.CreateMlArtifactRequest(id=artifact_id, parent_id=parent_id, data=value)
        return await self._connection.call(self._artifacts.CreateMlArtifact, request)

    async def delete(self, artifact_id: str) -> None:
        """Deletes an artifact that has none below it; of a trained model the version with its data key as well."""
        request = ml_artifacts_pb2.DeleteMlArtifactRequest(id=artifact_id)
        await self._connection.call(self._artifacts.DeleteMlArtifact, request)
