"""MaintenanceService."""

from datetime import timedelta

import grpc

from services.models.collect import Collector
from strongroom.models.v1 import maintenance_pb2 as pb
from strongroom.models.v1 import maintenance_pb2_grpc


class MaintenanceServicer(maintenance_pb2_grpc.MaintenanceServiceServicer):
    """What an administrator runs on the stores."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def CollectGarbage(
        self, request: pb.CollectGarbageRequest, context: grpc.ServicerContext
    ) -> pb.CollectGarbageResponse:
        min_age = timedelta(seconds=request.min_age_seconds) if request.HasField("min_age_seconds") else None
        return pb.CollectGarbageResponse(**vars(self._collector.collect(dry_run=request.dry_run, min_age=min_age)))
