"""AuditService: puts the parts of the log that the services keep together."""

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

import grpc
import structlog
from ulid import ULID

from services.auth.timestamps import Clock, timestamp
from services.shared.audit.servicer import AuditLogServicer
from services.shared.errors import InvalidArgument, PageTokenInvalid, Unavailable
from strongroom.audit.v1 import audit_log_pb2, audit_log_pb2_grpc
from strongroom.auth.v1 import audit_pb2 as pb
from strongroom.auth.v1 import audit_pb2_grpc

_OWN = "auth"
_PAGE_SIZE = 100
_OUTCOMES = ("", "allowed", "denied", "failed")
# Seconds that a service has to list events, which may mean to look at all of them, and to recompute its chains.
_LIST_SECONDS, _VERIFY_SECONDS = 5.0, 3600.0

_log = structlog.get_logger()


class PartUnavailable(Unavailable):
    """A part of the log is missing; the others alone would look like all of it."""

    reason = "AUDIT_PART_UNAVAILABLE"


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Asks all services at once.

    Args:
        own: auth's own part.
        channels: to the other services, by name.
        clock: the time of a verification.
    """

    def __init__(self, own: AuditLogServicer, channels: Mapping[str, grpc.Channel], clock: Clock) -> None:
        self._own = own
        self._stubs: dict[str, Any] = {
            name: audit_log_pb2_grpc.AuditLogServiceStub(channel) for name, channel in channels.items()
        }
        self._clock = clock

    def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: grpc.ServicerContext
    ) -> pb.ListAuditEventsResponse:
        size = request.page_size or _PAGE_SIZE
        wanted = _filter(request)
        asked = audit_log_pb2.ListEventsRequest(filter=wanted, page_size=size, before_id=_before(request.page_token))
        parts = self._ask("ListEvents", asked, _LIST_SECONDS, context, _services(wanted.service, self._stubs))
        found = sorted((event for part in parts for event in part.events), key=attrgetter("id"), reverse=True)
        # A part that gave as many as it was asked for may have more.
        more = len(found) > size or any(len(part.events) == size for part in parts)
        page = found[:size]
        return pb.ListAuditEventsResponse(events=page, next_page_token=page[-1].id if more else "")

    def VerifyAuditLog(
        self, request: pb.VerifyAuditLogRequest, context: grpc.ServicerContext
    ) -> pb.VerifyAuditLogResponse:
        asked = audit_log_pb2.VerifyChainsRequest()
        parts = self._ask("VerifyChains", asked, _VERIFY_SECONDS, context, _services("", self._stubs))
        chains = [report for part in parts for report in part.chains]
        return pb.VerifyAuditLogResponse(
            is_valid=all(report.is_valid for report in chains),
            chains=chains,
            verified_at=timestamp(self._clock()),
        )

    def _ask(
        self, method: str, request: Any, seconds: float, context: grpc.ServicerContext, names: Iterable[str]
    ) -> list[Any]:
        """The answers of all services in the order of their names. Raises PartUnavailable."""
        # Whoever asked may have gone before the others have answered.
        remaining = context.time_remaining()
        timeout = seconds if remaining is None else min(seconds, remaining)
        answers = {
            name: getattr(self._stubs[name], method).future(request, timeout=timeout)
            for name in names
            if name in self._stubs
        }
        return [
            getattr(self._own, method)(request, context) if name == _OWN else _answer(name, answers[name])
            for name in names
        ]


def _answer(name: str, answer: Any) -> Any:
    try:
        return answer.result()
    except grpc.RpcError as error:
        _log.warning("a part of the audit log is missing", part=name, code=error.code().name)
        message = f"The {name} service does not give its part of the audit log, so it can't be shown whole. Try again."
        raise PartUnavailable(message, part=name) from None


def _services(name: str, stubs: Mapping[str, Any]) -> list[str]:
    everyone = sorted((_OWN, *stubs))
    if name and name not in everyone:
        raise InvalidArgument(f"service must be one of {', '.join(everyone)}.", reason="FIELD_INVALID", field="service")
    return [name] if name else everyone


def _filter(request: pb.ListAuditEventsRequest) -> audit_log_pb2.AuditFilter:
    if request.outcome not in _OUTCOMES:
        message = "outcome must be allowed, denied or failed."
        raise InvalidArgument(message, reason="FIELD_INVALID", field="outcome")
    wanted = audit_log_pb2.AuditFilter(
        principal=request.principal,
        kind=request.kind,
        method=request.method,
        resource=request.resource,
        outcome=request.outcome,
        service=request.service,
        request_id=request.request_id,
    )
    for name in ("since", "until"):
        if request.HasField(name):
            getattr(wanted, name).CopyFrom(getattr(request, name))
    return wanted


def _before(page_token: str) -> str:
    try:
        return str(ULID.from_str(page_token)) if page_token else ""
    except ValueError:
        raise PageTokenInvalid("ListAuditEvents") from None
