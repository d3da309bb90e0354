"""InfoService."""

import time
from collections.abc import Callable

import grpc

from services.auth.health import HEALTHY, Health
from services.auth.registry_counts import RegistryCounts
from services.auth.timestamps import Clock
from strongroom.auth.v1 import info_pb2 as pb
from strongroom.auth.v1 import info_pb2_grpc

_DESCRIPTION = "One place for a team's models, the secrets they need and the keys that open them."


class InfoServicer(info_pb2_grpc.InfoServiceServicer):
    """What anyone may know.

    Args:
        monotonic: seconds that only grow.
    """

    def __init__(
        self,
        version: str,
        health: Health,
        counts: RegistryCounts,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._version = version
        self._health = health
        self._counts = counts
        self._clock = clock
        self._monotonic = monotonic
        self._started = monotonic()

    def GetInfo(self, _request: pb.GetInfoRequest, _context: grpc.ServicerContext) -> pb.GetInfoResponse:
        counts = self._counts.get()
        return pb.GetInfoResponse(
            name="Strongroom",
            version=self._version,
            description=_DESCRIPTION,
            docs_url="/docs",
            total_managers=counts.count if counts else None,
        )

    def GetHealth(self, _request: pb.GetHealthRequest, _context: grpc.ServicerContext) -> pb.GetHealthResponse:
        checks = self._health.check()
        now = int(self._clock().timestamp())
        return pb.GetHealthResponse(status=HEALTHY, timestamp=now, version=self._version, checks=checks)

    def GetRegistryHealth(
        self, _request: pb.GetRegistryHealthRequest, _context: grpc.ServicerContext
    ) -> pb.GetRegistryHealthResponse:
        self._health.check()
        counts = self._counts.get()
        return pb.GetRegistryHealthResponse(
            status="ok",
            uptime_s=int(self._monotonic() - self._started),
            models=counts.models if counts else None,
        )
