"""The installation as a whole."""
# Made from strongroom/client/admin.py by `make clients`. Change it there.

from strongroom.aio.connection import AsyncConnection
from strongroom.auth.v1 import info_pb2, info_pb2_grpc, tokens_pb2, tokens_pb2_grpc
from strongroom.connection import LONG_DEADLINE
from strongroom.models.v1 import maintenance_pb2, maintenance_pb2_grpc
from strongroom.retries import Repeat


class Admin:
    """The installation as a whole."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._info = info_pb2_grpc.InfoServiceStub(connection.channel)
        self._tokens = tokens_pb2_grpc.TokenServiceStub(connection.channel)
        self._maintenance = maintenance_pb2_grpc.MaintenanceServiceStub(connection.channel)

    async def health(self) -> info_pb2.GetHealthResponse:
        """Answers once every service can do its work, else raises Unavailable."""
        return await self._connection.call(self._info.GetHealth, info_pb2.GetHealthRequest(), repeat=Repeat.SAFE)

    async def caller(self) -> tokens_pb2.GetCallerResponse:
        """Who the caller is and what it may do."""
        return await self._connection.call(self._tokens.GetCaller, tokens_pb2.GetCallerRequest(), repeat=Repeat.SAFE)

    async def caller_and_limits(self) -> tuple[tokens_pb2.GetCallerResponse, dict[str, str]]:
        """The caller, and what this call found of its rate limit: `limit`, `remaining`, `reset`, `policy`.

        Empty without one. The policy is `100;w=60`: so many requests in so many seconds.
        """
        request = tokens_pb2.GetCallerRequest()
        caller, headers = await self._connection.answer(self._tokens.GetCaller, request, repeat=Repeat.SAFE)
        # https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-03.html, with Envoy's prefix or without.
        names = {name.removeprefix("x-"): value for name, value in headers.items()}
        limits = {part: names.get(f"ratelimit-{part}", "") for part in ("limit", "remaining", "reset", "policy")}
        return caller, {part: value for part, value in limits.items() if value}

    async def collect_garbage(
        self, *, dry_run: bool = False, min_age_seconds: int | None = None
    ) -> maintenance_pb2.CollectGarbageResponse:
        """Removes from the stores what nothing refers to."""
        request = maintenance_pb2.CollectGarbageRequest(dry_run=dry_run, min_age_seconds=min_age_seconds)
        method = self._maintenance.CollectGarbage
        return await self._connection.call(method, request, repeat=Repeat.SAFE, deadline=LONG_DEADLINE)
