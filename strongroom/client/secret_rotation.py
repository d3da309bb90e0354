"""Secrets that get a new value by themselves."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format, struct_pb2

from strongroom.client.paging import pages
from strongroom.connection import Connection
from strongroom.retries import Repeat
from strongroom.secrets.v1 import rotations_pb2 as pb
from strongroom.secrets.v1 import rotations_pb2_grpc

# Seconds between two looks at a rotation.
_LOOK = 0.2
_GOING_ON = ("requested", "running", "rolling_back")


class SecretRotation:
    """How secrets rotate: set up, asked for, shown."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = rotations_pb2_grpc.SecretRotationServiceStub(connection.channel)

    def set(
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
        return self._connection.call(self._stub.SetRotation, request, repeat=Repeat.SAFE)

    def get(self, name: str) -> pb.SecretRotation:
        """How a secret rotates, and what became of it."""
        return self._connection.call(self._stub.GetRotation, pb.GetRotationRequest(name=name), repeat=Repeat.SAFE)

    def list(self) -> Iterator[pb.SecretRotation]:
        """How secrets rotate: those that the caller may list, by name."""
        for page in pages(self._connection, self._stub.ListSecretRotations, pb.ListSecretRotationsRequest()):
            yield from page.rotations

    def history(self, name: str) -> Sequence[pb.RotationRun]:
        """The latest rotations of a secret, the newest first."""
        request = pb.ListRotationRunsRequest(name=name)
        return self._connection.call(self._stub.ListRotationRuns, request, repeat=Repeat.SAFE).runs

    def rotate(self, name: str) -> pb.SecretRotation:
        """Asks for a rotation now; `finished` waits for it."""
        return self._connection.call(self._stub.RotateSecret, pb.RotateSecretRequest(name=name))

    def finished(self, rotation: pb.SecretRotation, seconds: float = 120.0) -> pb.SecretRotation:
        """Waits until nothing goes on any more, or so many seconds have passed."""
        deadline = time.monotonic() + seconds
        while rotation.state in _GOING_ON and time.monotonic() < deadline:
            time.sleep(_LOOK)
            rotation = self.get(rotation.name)
        return rotation

    def remove(self, name: str, *, abandon: bool = False) -> None:
        """Lets a secret stay as it is from now on; with `abandon` also in the middle of a rotation."""
        self._connection.call(self._stub.RemoveRotation, pb.RemoveRotationRequest(name=name, abandon=abandon))
