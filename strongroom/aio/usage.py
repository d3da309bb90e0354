"""The ledger of use."""
# Made from strongroom/client/usage.py by `make clients`. Change it there.

from collections.abc import AsyncIterator
from datetime import date

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.auth.v1 import usage_pb2 as pb
from strongroom.auth.v1 import usage_pb2_grpc


class Usage:
    """Who used how much, by day and class."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = usage_pb2_grpc.UsageServiceStub(connection.channel)

    async def list(
        self, *, principal: str = "", from_day: date | str = "", to_day: date | str = ""
    ) -> AsyncIterator[pb.Use]:
        """The lines of the ledger that the caller may see, the latest day first.

        Args:
            principal: one principal's alone; `self` is the caller.
            from_day: UTC, such as `2026-11-01`; 30 days ago if empty.
            to_day: included; today if empty.
        """
        request = pb.ListUsageRequest(principal=principal, from_day=str(from_day), to_day=str(to_day))
        async for page in pages(self._connection, self._stub.ListUsage, request):
            for each in page.usage:
                yield each

    async def export(
        self,
        format: str = "csv",  # noqa: A002 - what REST calls it
        *,
        principal: str = "",
        from_day: date | str = "",
        to_day: date | str = "",
    ) -> AsyncIterator[bytes]:
        """The same as the pieces of a file, `csv` or `json`."""
        request = pb.ExportUsageRequest(principal=principal, from_day=str(from_day), to_day=str(to_day), format=format)
        call = await self._connection.begin(self._stub.ExportUsage, request)
        async for piece in self._connection.answers(call):
            yield piece.data
