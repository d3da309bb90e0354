"""Aliases: names that move from version to version."""
# Made from strongroom/client/aliases.py by `make clients`. Change it there.

from collections.abc import AsyncIterator

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.client.aliases import DEFAULT_MANAGER
from strongroom.models.v1 import catalog_pb2 as pb
from strongroom.models.v1 import catalog_pb2_grpc
from strongroom.retries import Repeat


class Aliases:
    """Aliases of models. With the `etag` that was read a change is refused as Conflict if somebody was faster; "0"
    stands for what nobody has set yet."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = catalog_pb2_grpc.CatalogServiceStub(connection.channel)

    async def get(self, model: str, alias: str, *, manager: str = DEFAULT_MANAGER) -> pb.Alias:
        """The version an alias names."""
        request = pb.GetAliasRequest(manager_id=manager, model_name=model, alias=alias)
        return await self._connection.call(self._stub.GetAlias, request, repeat=Repeat.SAFE)

    async def list(self, model: str, *, manager: str = DEFAULT_MANAGER) -> AsyncIterator[pb.Alias]:
        """The aliases of a model by name."""
        request = pb.ListAliasesRequest(manager_id=manager, model_name=model)
        async for page in pages(self._connection, self._stub.ListAliases, request):
            for each in page.aliases:
                yield each

    async def set(
        self,
        model: str,
        alias: str,
        version: str,
        *,
        manager: str = DEFAULT_MANAGER,
        etag: str = "",
        if_better: str = "",
    ) -> pb.Alias:
        """Points an alias to a version.

        With `if_better`, the name of a metric, it raises FailedPrecondition unless the version beats the one the alias
        names now.
        """
        request = pb.SetAliasRequest(
            manager_id=manager, model_name=model, alias=alias, version=version, etag=etag, if_better=if_better
        )
        return await self._connection.call(self._stub.SetAlias, request)

    async def delete(self, model: str, alias: str, *, manager: str = DEFAULT_MANAGER, etag: str = "") -> pb.Alias:
        """Removes an alias; its version stays."""
        request = pb.DeleteAliasRequest(manager_id=manager, model_name=model, alias=alias, etag=etag)
        return await self._connection.call(self._stub.DeleteAlias, request)
