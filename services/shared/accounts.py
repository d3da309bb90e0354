"""What the callers of a service use and may use: the ledger and the quotas, which auth keeps."""

import math
from collections.abc import Callable
from datetime import UTC, datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from services.shared import quotas
from services.shared.call import Call
from services.shared.channels import service_channel
from services.shared.errors import InvalidArgument
from services.shared.identity import Quota
from services.shared.metering import Meter, Report, Use
from services.shared.quotas import Grant, Leases, QuotaUnknown, Standing
from services.shared.tokens import ServiceIdentity
from strongroom.auth.v1 import usage_pb2 as pb
from strongroom.auth.v1 import usage_pb2_grpc

# Seconds. A report is repeated; a caller waits for a quota.
_REPORT_TIMEOUT = 2.0
_QUOTA_TIMEOUT = 2.0
# What a report can never be accepted with.
_FOR_GOOD = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OUT_OF_RANGE)


class Accounts:
    """The meter and the leases of a process, and the two layers that they are."""

    def __init__(self, meter: Meter, leases: Leases, disconnect: Callable[[], None] = lambda: None) -> None:
        self.meter = meter
        self._leases = leases
        self._disconnect = disconnect

    def start(self) -> None:
        self.meter.start()

    def close(self) -> None:
        """Reports what was used last, while auth can still be reached."""
        self.meter.close()
        self._disconnect()

    def limit(self, call: Call) -> None:
        """The layer that holds callers to their quotas. A bulk stream is one request, a push with all its calls too."""
        quota = next((q for q in call.principal.quotas if q.usage_class == call.method.usage_class), None)
        if quota is not None and not call.method.continues_use:
            standing = self._leases.take(call.principal.id, quota)
            call.hints += _hints(standing)
            if not standing.allowed:
                raise quotas.exhausted(quota, standing)


def accounts_for(
    address: str, identity: ServiceIdentity, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Accounts:
    """The accounts of a service that reaches auth at an address."""
    channel = service_channel(address, "auth", identity)
    ledger = _RemoteLedger(channel)
    return Accounts(Meter(ledger.record, clock, is_remote=True), Leases(ledger.reserve, clock), channel.close)


class _RemoteLedger:
    """Auth's ledger and quotas, over a service's channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._auth = usage_pb2_grpc.UsageServiceStub(channel)

    def record(self, report: Report) -> None:
        """Raises InvalidArgument if auth will never take it, RpcError if it did not answer."""
        try:
            self._auth.RecordUse(_report_message(report), timeout=_REPORT_TIMEOUT)
        except grpc.RpcError as error:
            if error.code() in _FOR_GOOD:
                raise InvalidArgument(error.details() or "") from None
            raise

    def reserve(self, principal: str, quota: Quota, wanted: int) -> Grant:
        """Raises QuotaUnknown."""
        request = pb.ReserveQuotaRequest(
            principal=principal,
            usage_class=quota.usage_class,
            requests=quota.requests,
            per=quota.per,
            wanted=wanted,
        )
        try:
            answer = self._auth.ReserveQuota(request, timeout=_QUOTA_TIMEOUT)
        except grpc.RpcError as error:
            raise QuotaUnknown from error
        return Grant(answer.granted, answer.remaining, answer.resets_at.ToDatetime(tzinfo=UTC))


def _hints(standing: Standing) -> list[tuple[str, str]]:
    """https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-03.html, section 3."""
    seconds = math.ceil(standing.resets_in.total_seconds())
    values = {"limit": standing.limit, "remaining": standing.remaining, "reset": seconds}
    return [(f"ratelimit-{name}", str(value)) for name, value in values.items()]


def _report_message(report: Report) -> pb.RecordUseRequest:
    """The report as a message."""
    message = pb.RecordUseRequest(batch_id=report.id, usage=map(use_message, report.uses))
    for last in report.last_uses:
        at = Timestamp()
        at.FromDatetime(last.at)
        message.last_uses.add(credential_id=last.credential_id, at=at, requests=last.requests)
    return message


def use_message(use: Use) -> pb.Use:
    """A line as a message."""
    return pb.Use(
        principal=use.principal,
        name=use.name,
        day=use.day,
        usage_class=use.usage_class,
        requests=use.requests,
        errors=use.errors,
        bytes_received=use.bytes_received,
        bytes_sent=use.bytes_sent,
        job_seconds=use.job_milliseconds / 1000,
        cost_estimate=use.cost_micros / 1_000_000,
    )
