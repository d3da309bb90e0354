"""SystemService."""

import platform
import socket
from collections.abc import Callable
from datetime import datetime

import grpc

from services.models.messages import timestamp
from strongroom.models.v1 import system_pb2 as pb
from strongroom.models.v1 import system_pb2_grpc


class SystemServicer(system_pb2_grpc.SystemServiceServicer):
    """Where jobs run."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    def GetSystem(self, request: pb.GetSystemRequest, context: grpc.ServicerContext) -> pb.GetSystemResponse:
        now = self._clock()
        return pb.GetSystemResponse(
            current_time=timestamp(now),
            timezone=now.astimezone().tzname() or "UTC",
            python_version=platform.python_version(),
            platform=platform.platform(),
            hostname=socket.gethostname(),
        )
