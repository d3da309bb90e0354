"""SecretRotationService: requests to the policies and back."""

import base64
import binascii
from datetime import datetime, timedelta

import grpc
from google.protobuf import json_format, struct_pb2, timestamp_pb2

from services.secrets.rotation.policies import Plan, RotationPolicies, RotationStatus
from services.secrets.rotation.runs import Run, State
from services.shared.call import caller
from services.shared.errors import PageTokenInvalid
from strongroom.secrets.v1 import rotations_pb2 as pb
from strongroom.secrets.v1 import rotations_pb2_grpc

_PAGE_SIZE = 100
_GRACE_SECONDS = 24 * 3600


class SecretRotationServicer(rotations_pb2_grpc.SecretRotationServiceServicer):
    """Serves how secrets rotate."""

    def __init__(self, policies: RotationPolicies) -> None:
        self._policies = policies

    def SetRotation(self, request: pb.SetRotationRequest, context: grpc.ServicerContext) -> pb.SecretRotation:
        principal = caller(context)
        status = self._policies.set(
            request.name,
            _plan(request),
            principal.id,
            readable=lambda name: principal.allows("secrets.read", f"secrets/{name}"),
        )
        return _rotation(status)

    def GetRotation(self, request: pb.GetRotationRequest, context: grpc.ServicerContext) -> pb.SecretRotation:
        return _rotation(self._policies.get(request.name))

    def RemoveRotation(
        self, request: pb.RemoveRotationRequest, context: grpc.ServicerContext
    ) -> pb.RemoveRotationResponse:
        self._policies.remove(request.name, abandon=request.abandon)
        return pb.RemoveRotationResponse(name=request.name)

    def RotateSecret(self, request: pb.RotateSecretRequest, context: grpc.ServicerContext) -> pb.SecretRotation:
        return _rotation(self._policies.request(request.name, caller(context).id))

    def ListRotationRuns(
        self, request: pb.ListRotationRunsRequest, context: grpc.ServicerContext
    ) -> pb.ListRotationRunsResponse:
        return pb.ListRotationRunsResponse(runs=map(_run, self._policies.history(request.name)))

    def ListSecretRotations(
        self, request: pb.ListSecretRotationsRequest, context: grpc.ServicerContext
    ) -> pb.ListSecretRotationsResponse:
        principal, size = caller(context), request.page_size or _PAGE_SIZE
        page = self._policies.listing(
            visible=lambda name: principal.allows("secrets.list", f"secrets/{name}"),
            after=_after(request.page_token),
            limit=size + 1,
        )
        token = base64.urlsafe_b64encode(page[size - 1].secret_name.encode()).decode() if len(page) > size else ""
        return pb.ListSecretRotationsResponse(rotations=map(_rotation, page[:size]), next_page_token=token)


def _after(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise PageTokenInvalid("ListSecretRotations") from None


def _plan(request: pb.SetRotationRequest) -> Plan:
    grace = request.grace_seconds if request.HasField("grace_seconds") else _GRACE_SECONDS
    options = json_format.MessageToDict(request.options)
    schedule = " ".join(request.schedule.split())
    return Plan(request.rotator, options, schedule, request.time_zone or "UTC", timedelta(seconds=grace))


def _rotation(status: RotationStatus) -> pb.SecretRotation:
    plan = status.plan
    return pb.SecretRotation(
        name=status.secret_name,
        rotator=plan.rotator,
        options=json_format.ParseDict(dict(plan.options), struct_pb2.Struct()),
        schedule=plan.schedule,
        time_zone=plan.time_zone,
        grace_seconds=int(plan.grace.total_seconds()),
        state=_state(status),
        next_run_at=_timestamp(status.next_run_at),
        retry_at=_timestamp(status.retry_at),
        last_success_at=_timestamp(status.last_success_at),
        failures=status.failures,
        error=status.error,
        running=None if status.running is None else _run(status.running),
        last=None if status.latest is None else _run(status.latest),
        set_by=status.created_by,
    )


def _state(status: RotationStatus) -> str:
    if status.running is not None:
        return "rolling_back" if status.running.state is State.ROLLBACK else "running"
    if status.requested:
        return "requested"
    return "failing" if status.failures or status.error else "idle"


def _run(run: Run) -> pb.RotationRun:
    return pb.RotationRun(
        id=run.id,
        state=run.state,
        trigger=run.trigger,
        requested_by=run.requested_by,
        from_version=run.base_version,
        to_version=run.version or 0,
        error=run.error,
        reason=run.reason,
        started_at=_timestamp(run.started_at),
        finished_at=_timestamp(run.finished_at),
        grace_ends_at=_timestamp(run.retire_at),
        retired_at=_timestamp(run.retired_at),
    )


def _timestamp(moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    if moment is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment)
    return stamp
