"""Secrets that get a new value by themselves."""
# Made from strongroom/client/secret_rotation.py by `make clients`. Change it there.

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format, struct_pb2

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.client.secret_rotation import _GOING_ON, _LOOK
from strongroom.retries import Repeat
from strongroom.secrets.v1 import rotations_pb2 as pb
from strongroom.secrets.v1 import rotations_pb2_grpc


class SecretRotation:
    """How secrets rotate: set up, asked for, shown."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = rotations_pb2_grpc.SecretRotationServiceStub(connection.channel)

    async def set(
        self,
        name: str,
        rotator: str,
        options: Mapping[str, Any] | None = None,
        *,
        schedule: str = "",
        time_zone: str = "",
        grace_seconds: int | None = None,
    ) -> pb.SecretRotation:
        """Makes a secret rotate, or changes how.

        Args:
            rotator: such as `random`, `postgresql`, `strongroom-key`, `aws-access-key` or `webhook`.
            options: what the rotator needs to know; no secrets.
            schedule: five fields as in cron(5); empty: it rotates when it is asked for.
            time_zone: of the schedule, such as `Europe/Vienna`; UTC if empty.
            grace_seconds: for which the value before works on; None: a day.
        """
        request = pb.SetRotationRequest(
            name=name,
            rotator=rotator,
            options=json_format.ParseDict(dict(options or {}), struct_pb2.Struct()),
            schedule=schedule,
            time_zone=time_zone,
            grace_seconds=grace_seconds,
        )
        return await self._connection.call(self._stub.SetRotation, request, repeat=Repeat.SAFE)

    async def get(self, name: str) -> pb.SecretRotation:
        """How a secret rotates, and what became of it."""
        return await self._connection.call(self._stub.GetRotation, pb.GetRotationRequest(name=name), repeat=Repeat.SAFE)

    async def list(self) -> AsyncIterator[pb.SecretRotation]:
        """How secrets rotate: those that the caller may list, by name."""
        async for page in pages(self._connection, self._stub.ListSecretRotations, pb.ListSecretRotationsRequest()):
            for each in page.rotations:
                yield each

    async def history(self, name: str) -> Sequence[pb.RotationRun]:
        """The latest rotations of a secret, the newest first."""
        request = pb.ListRotationRunsRequest(name=name)
        return (await self._connection.call(self._stub.ListRotationRuns, request, repeat=Repeat.SAFE)).runs

    async def rotate(self, name: str) -> pb.SecretRotation:
        """Asks for a rotation now; `finished` waits for it."""
        return await self._connection.call(self._stub.RotateSecret, pb.RotateSecretRequest(name=name))

    async def finished(self, rotation: pb.SecretRotation, seconds: float = 120.0) -> pb.SecretRotation:
        """Waits until nothing goes on any more, or so many seconds have passed."""
        deadline = time.monotonic() + seconds
        while rotation.state in _GOING_ON and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK)
            rotation = await self.get(rotation.name)
        return rotation

    async def remove(self, name: str, *, abandon: bool = False) -> None:
        """Lets a secret stay as it is from now on; with `abandon` also in the middle of a rotation."""
        await self._connection.call(self._stub.RemoveRotation, pb.RemoveRotationRequest(name=name, abandon=abandon))
