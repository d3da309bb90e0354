"""RotationService."""

import grpc

from services.models.manager_keys import ManagerKeys, Password, RotationReceipt
from services.models.messages import timestamp
from services.models.reencryptions import Reencryption, Reencryptions
from services.shared.call import caller
from strongroom.models.v1 import rotation_pb2 as pb
from strongroom.models.v1 import rotation_pb2_grpc


class RotationServicer(rotation_pb2_grpc.RotationServiceServicer):
    """Rotates and replaces the keys of managers."""

    def __init__(self, keys: ManagerKeys, reencryptions: Reencryptions) -> None:
        self._keys = keys
        self._reencryptions = reencryptions

    def RotateKeys(self, request: pb.RotateKeysRequest, context: grpc.ServicerContext) -> pb.RotateKeysResponse:
        password = Password(request.password) if request.HasField("password") else None
        return _receipt(self._keys.rotate(request.manager_id, password, requested_by=caller(context).id))

    def ListRotations(
        self, request: pb.ListRotationsRequest, context: grpc.ServicerContext
    ) -> pb.ListRotationsResponse:
        return pb.ListRotationsResponse(rotations=map(_receipt, self._keys.receipts(request.manager_id)))

    def Reencrypt(self, request: pb.ReencryptRequest, context: grpc.ServicerContext) -> pb.Reencryption:
        return _job(self._reencryptions.start(request.manager_id, request.model_name, caller(context).id))

    def GetReencryption(self, request: pb.GetReencryptionRequest, context: grpc.ServicerContext) -> pb.Reencryption:
        return _job(self._reencryptions.get(request.manager_id, request.reencryption_id))


def _receipt(receipt: RotationReceipt) -> pb.RotateKeysResponse:
    return pb.RotateKeysResponse(
        manager_id=receipt.manager_id,
        from_version=receipt.from_version,
        to_version=receipt.to_version,
        rewrapped_keys=receipt.rewrapped_keys,
        using_password=receipt.using_password,
        rotated_at=timestamp(receipt.rotated_at),
    )


def _job(job: Reencryption) -> pb.Reencryption:
    return pb.Reencryption(
        reencryption_id=job.id,
        manager_id=job.manager_id,
        model_name=job.model_name,
        state=job.state,
        error=job.error,
        versions_done=job.versions_done,
        versions_left=job.versions_left,
        bytes_done=job.bytes_done,
        skipped_versions=job.skipped,
        started_at=timestamp(job.started_at),
        finished_at=None if job.finished_at is None else timestamp(job.finished_at),
    )
