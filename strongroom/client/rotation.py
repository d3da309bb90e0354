"""The keys of managers."""

import time

from strongroom.connection import LONG_DEADLINE, Connection
from strongroom.models.v1 import rotation_pb2 as pb
from strongroom.models.v1 import rotation_pb2_grpc
from strongroom.retries import Repeat

# Seconds between two looks at a re-encryption.
_LOOK = 0.25


class Rotation:
    """The keys of managers: wrapped anew, or replaced with everything written anew under them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = rotation_pb2_grpc.RotationServiceStub(connection.channel)

    def rotate(self, manager: str = "default", *, password: str | None = None) -> pb.RotateKeysResponse:
        """Wraps a manager's keys under a new key-encryption key, random or of a password; the receipt."""
        request = pb.RotateKeysRequest(manager_id=manager, password=password)
        return self._connection.call(self._stub.RotateKeys, request, deadline=LONG_DEADLINE)

    def receipts(self, manager: str = "default") -> list[pb.RotateKeysResponse]:
        """The latest rotations of a manager, the newest first."""
        request = pb.ListRotationsRequest(manager_id=manager)
        return list(self._connection.call(self._stub.ListRotations, request, repeat=Repeat.SAFE).rotations)

    def reencrypt(self, manager: str = "default", *, model: str = "") -> pb.Reencryption:
        """Begins to write a manager, or one of its models, anew under new keys."""
        request = pb.ReencryptRequest(manager_id=manager, model_name=model)
        return self._connection.call(self._stub.Reencrypt, request)

    def reencryption(self, manager: str, reencryption_id: str) -> pb.Reencryption:
        """How far a re-encryption is."""
        request = pb.GetReencryptionRequest(manager_id=manager, reencryption_id=reencryption_id)
        return self._connection.call(self._stub.GetReencryption, request, repeat=Repeat.SAFE)

    def finished(self, job: pb.Reencryption) -> pb.Reencryption:
        """Waits until a re-encryption is done or has failed."""
        while job.state == "running":
            time.sleep(_LOOK)
            job = self.reencryption(job.manager_id, job.reencryption_id)
        return job
