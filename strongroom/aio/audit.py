"""The audit log."""
# Made from strongroom/client/audit.py by `make clients`. Change it there.

from collections.abc import AsyncIterator
from datetime import datetime

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.audit.v1.audit_log_pb2 import AuditEvent
from strongroom.auth.v1 import audit_pb2 as pb
from strongroom.auth.v1 import audit_pb2_grpc
from strongroom.client.audit import _timestamp
from strongroom.connection import LONG_DEADLINE
from strongroom.retries import Repeat


class Audit:
    """Who did what, and who was refused."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = audit_pb2_grpc.AuditServiceStub(connection.channel)

    async def list(
        self,
        *,
        principal: str = "",
        kind: str = "",
        method: str = "",
        resource: str = "",
        outcome: str = "",
        service: str = "",
        request_id: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncIterator[AuditEvent]:
        """The events that match everything given, the latest first, fetched as they are asked for.

        Args:
            principal, method, resource: a name, or a prefix that ends in `*`.
            kind: `call`, or a name such as `auth.invalid_key`.
            outcome: `allowed`, `denied` or `failed`.
            service: `auth`, `models` or `secrets`.
            since, until: moments with a time zone.
        """
        request = pb.ListAuditEventsRequest(
            principal=principal,
            kind=kind,
            method=method,
            resource=resource,
            outcome=outcome,
            service=service,
            request_id=request_id,
            since=_timestamp(since),
            until=_timestamp(until),
        )
        async for page in pages(self._connection, self._stub.ListAuditEvents, request):
            for each in page.events:
                yield each

    async def verify(self) -> pb.VerifyAuditLogResponse:
        """Recomputes every chain: finds any event that was edited, deleted or moved."""
        request = pb.VerifyAuditLogRequest()
        return await self._connection.call(
            self._stub.VerifyAuditLog, request, repeat=Repeat.SAFE, deadline=LONG_DEADLINE
        )
