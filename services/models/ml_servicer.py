"""MlService."""

from typing import Any

import grpc

from services.models.jobs.data_tables import DataTable, TableInvalid, TableTooLarge
from services.models.jobs.submission import Submissions
from services.shared.call import caller
from strongroom.models.v1 import ml_pb2 as pb
from strongroom.models.v1 import ml_pb2_grpc

# As many as the gateway takes over REST.
_MAX_BYTES = 16 << 20


class MlServicer(ml_pb2_grpc.MlServiceServicer):
    """Trains and predicts."""

    def __init__(self, submissions: Submissions) -> None:
        self._submissions = submissions

    def Train(self, request: pb.TrainRequest, context: grpc.ServicerContext) -> pb.TrainResponse:
        job = self._submissions.train(caller(context), request.config_id, _table(request.data))
        return pb.TrainResponse(
            job_id=job.id,
            model_artifact_id=job.artifact_id,
            status=job.state,
            message="Training job submitted",
        )

    def Predict(self, request: pb.PredictRequest, context: grpc.ServicerContext) -> pb.PredictResponse:
        job = self._submissions.predict(
            *(caller(context), request.model_artifact_id, _table(request.historic), _table(request.future)),
            output=request.output,
        )
        return pb.PredictResponse(
            job_id=job.id,
            prediction_artifact_id=job.artifact_id,
            status=job.state,
            message="Prediction job submitted",
        )


def _table(message: pb.Table) -> DataTable | str:
    """The table, or the address of one that is kept in a file."""
    if message.url:
        if message.columns or message.data:
            raise TableInvalid("A table has a `url`, or columns and data, not both.")
        return message.url
    # Decoded it takes thirty times its size.
    if message.ByteSize() > _MAX_BYTES:
        raise TableTooLarge(f"A table has at most {_MAX_BYTES >> 20} MiB as a message: send fewer rows or columns.")
    # Iterating a ListValue gives plain values; lists and objects in it stay messages, which no table takes.
    rows: list[list[Any]] = [list(row) for row in message.data]
    return DataTable(list(message.columns), rows)
