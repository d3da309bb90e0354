"""AuditLogService, the same in every service."""

from datetime import UTC

import grpc

from services.shared.audit.chain import Report
from services.shared.audit.event import LENGTHS, Entry, microseconds
from services.shared.audit.log import Filter
from services.shared.audit.trail import Trail
from strongroom.audit.v1 import audit_log_pb2 as pb
from strongroom.audit.v1 import audit_log_pb2_grpc

AUDIT_LOG_SERVICE = pb.DESCRIPTOR.services_by_name["AuditLogService"].full_name

_PAGE_SIZE = 100


class AuditLogServicer(audit_log_pb2_grpc.AuditLogServiceServicer):
    """Gives auth this service's part of the log."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    def ListEvents(self, request: pb.ListEventsRequest, context: grpc.ServicerContext) -> pb.ListEventsResponse:
        log = self._trail.log
        entries = log.entries(_filter(request.filter), request.page_size or _PAGE_SIZE, request.before_id)
        return pb.ListEventsResponse(events=[_event_message(log.service, entry) for entry in entries])

    def VerifyChains(self, request: pb.VerifyChainsRequest, context: grpc.ServicerContext) -> pb.VerifyChainsResponse:
        service = self._trail.log.service
        return pb.VerifyChainsResponse(chains=[_report_message(service, report) for report in self._trail.verify()])


def _filter(message: pb.AuditFilter) -> Filter:
    """The filter as the log takes it. `service` is for whoever asks several services."""
    return Filter(
        principal=message.principal,
        kind=message.kind,
        method=message.method,
        resource=message.resource,
        outcome=message.outcome,
        request_id=message.request_id,
        since=microseconds(message.since.ToDatetime(tzinfo=UTC)) if message.HasField("since") else None,
        until=microseconds(message.until.ToDatetime(tzinfo=UTC)) if message.HasField("until") else None,
    )


def _event_message(service: str, entry: Entry) -> pb.AuditEvent:
    """An entry as a message."""
    event = entry.event
    message = pb.AuditEvent(
        id=entry.id,
        service=service,
        count=event.count,
        chain=entry.chain,
        sequence=entry.sequence,
        hash=entry.hash.hex(),
        **{name: getattr(event, name) for name in LENGTHS},
    )
    message.time.FromMicroseconds(entry.time)
    return message


def _report_message(service: str, report: Report) -> pb.ChainReport:
    """A report as a message."""
    message = pb.ChainReport(
        chain=report.chain,
        service=service,
        events=report.events,
        is_closed=report.is_closed,
        heads=report.heads,
        is_valid=not report.problems,
        problems=report.problems,
    )
    if report.began_at is not None:
        message.began_at.FromMicroseconds(report.began_at)
    return message
