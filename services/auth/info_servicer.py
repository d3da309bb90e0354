"""InfoService."""

import grpc

from services.auth.health import HEALTHY, Health
from services.auth.manager_count import ManagerCount
from services.auth.timestamps import Clock
from strongroom.auth.v1 import info_pb2 as pb
from strongroom.auth.v1 import info_pb2_grpc

_DESCRIPTION = "One place for a team's models, the secrets they need and the keys that open them."


class InfoServicer(info_pb2_grpc.InfoServiceServicer):
    """What anyone may know."""

    def __init__(self, version: str, health: Health, managers: ManagerCount, clock: Clock) -> None:
        self._version = version
        self._health = health
        self._managers = managers
        self._clock = clock

    def GetInfo(self, _request: pb.GetInfoRequest, _context: grpc.ServicerContext) -> pb.GetInfoResponse:
        return pb.GetInfoResponse(
            name="Strongroom",
            version=self._version,
            description=_DESCRIPTION,
            docs_url="/docs",
            total_managers=self._managers.get(),
        )

    def GetHealth(self, _request: pb.GetHealthRequest, _context: grpc.ServicerContext) -> pb.GetHealthResponse:
        checks = self._health.check()
        now = int(self._clock().timestamp())
        return pb.GetHealthResponse(status=HEALTHY, timestamp=now, version=self._version, checks=checks)
