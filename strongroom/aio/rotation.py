"""The keys of managers."""
# Made from strongroom/client/rotation.py by `make clients`. Change it there.

import asyncio

from strongroom.aio.connection import AsyncConnection
from strongroom.client.rotation import _LOOK
from strongroom.connection import LONG_DEADLINE
from strongroom.models.v1 import rotation_pb2 as pb
from strongroom.models.v1 import rotation_pb2_grpc
from strongroom.retries import Repeat


class Rotation:
    """The keys of managers: wrapped anew, or replaced with everything written anew under them."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = rotation_pb2_grpc.RotationServiceStub(connection.channel)

    async def rotate(self, manager: str = "default", *, password: str | None = None) -> pb.RotateKeysResponse:
        """Wraps a manager's keys under a new key-encryption key, random or of a password; the receipt."""
        request = pb.RotateKeysRequest(manager_id=manager, password=password)
        return await self._connection.call(self._stub.RotateKeys, request, deadline=LONG_DEADLINE)

    async def receipts(self, manager: str = "default") -> list[pb.RotateKeysResponse]:
        """The latest rotations of a manager, the newest first."""
        request = pb.ListRotationsRequest(manager_id=manager)
        return list((await self._connection.call(self._stub.ListRotations, request, repeat=Repeat.SAFE)).rotations)

    async def reencrypt(self, manager: str = "default", *, model: str = "") -> pb.Reencryption:
        """Begins to write a manager, or one of its models, anew under new keys."""
        request = pb.ReencryptRequest(manager_id=manager, model_name=model)
        return await self._connection.call(self._stub.Reencrypt, request)

    async def reencryption(self, manager: str, reencryption_id: str) -> pb.Reencryption:
        """How far a re-encryption is."""
        request = pb.GetReencryptionRequest(manager_id=manager, reencryption_id=reencryption_id)
        return await self._connection.call(self._stub.GetReencryption, request, repeat=Repeat.SAFE)

    async def finished(self, job: pb.Reencryption) -> pb.Reencryption:
        """Waits until a re-encryption is done or has failed."""
        while job.state == "running":
            await asyncio.sleep(_LOOK)
            job = await self.reencryption(job.manager_id, job.reencryption_id)
        return job
