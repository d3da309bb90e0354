"""UsageService."""

import math
from collections.abc import Iterator
from typing import Any

import grpc
from google.api import httpbody_pb2

from services.auth import ledger_files
from services.auth.ledger import Ledger
from services.auth.ledger_pages import Query
from services.auth.quota_counters import QuotaCounters
from services.auth.timestamps import moment, timestamp
from services.shared.accounts import use_message
from services.shared.call import caller
from services.shared.errors import InvalidArgument
from services.shared.identity import Quota
from services.shared.metering import LastUse, Report, Use
from services.shared.quotas import PERIODS
from strongroom.auth.v1 import usage_pb2 as pb
from strongroom.auth.v1 import usage_pb2_grpc

_PAGE_SIZE = 100
# The largest whole number that a double holds exactly.
_MOST = 2**53


class UsageServicer(usage_pb2_grpc.UsageServiceServicer):
    """Shows the ledger, adds to it, and gives out of quotas."""

    def __init__(self, ledger: Ledger, counters: QuotaCounters) -> None:
        self._ledger = ledger
        self._counters = counters

    def ListUsage(self, request: pb.ListUsageRequest, context: grpc.ServicerContext) -> pb.ListUsageResponse:
        query = Query(request.principal, request.from_day, request.to_day)
        size = request.page_size or _PAGE_SIZE
        lines, page_token = self._ledger.page(caller(context), query, size, request.page_token)
        return pb.ListUsageResponse(usage=map(use_message, lines), next_page_token=page_token)

    def ExportUsage(
        self, request: pb.ExportUsageRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody]:
        form = request.format or ledger_files.CSV
        lines = self._ledger.export(caller(context), Query(request.principal, request.from_day, request.to_day))
        context.send_initial_metadata((("content-disposition", f'attachment; filename="usage.{form}"'),))
        for piece in ledger_files.pieces(form, lines):
            yield httpbody_pb2.HttpBody(content_type=ledger_files.CONTENT_TYPES[form], data=piece)

    def RecordUse(self, request: pb.RecordUseRequest, context: grpc.ServicerContext) -> pb.RecordUseResponse:
        uses = tuple(_use(message) for message in request.usage)
        last_uses = tuple(LastUse(last.credential_id, moment(last.at), last.requests) for last in request.last_uses)
        self._ledger.record(Report(request.batch_id, uses, last_uses))
        return pb.RecordUseResponse()

    def ReserveQuota(self, request: pb.ReserveQuotaRequest, context: grpc.ServicerContext) -> pb.ReserveQuotaResponse:
        if request.per not in PERIODS:
            raise InvalidArgument("per must be minute, hour or day.", reason="FIELD_INVALID", field="per")
        per: Any = request.per
        quota = Quota(request.usage_class, request.requests, per)
        grant = self._counters.reserve(request.principal, quota, request.wanted)
        return pb.ReserveQuotaResponse(
            granted=grant.granted, remaining=grant.remaining, resets_at=timestamp(grant.resets_at)
        )


def _use(message: pb.Use) -> Use:
    """The line as it is added."""
    return Use(
        principal=message.principal,
        name=message.name,
        day=message.day,
        usage_class=message.usage_class,
        requests=_whole(message.requests),
        errors=_whole(message.errors),
        bytes_received=_whole(message.bytes_received),
        bytes_sent=_whole(message.bytes_sent),
        job_milliseconds=_whole(message.job_seconds * 1000),
        cost_micros=_whole(message.cost_estimate * 1_000_000),
    )


def _whole(number: float) -> int:
    if not (math.isfinite(number) and 0 <= number <= _MOST):
        raise InvalidArgument("Use is counted in whole numbers.", reason="FIELD_INVALID")
    return round(number)
