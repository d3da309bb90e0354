"""Where weights are kept."""
# Made from strongroom/client/stores.py by `make clients`. Change it there.

import asyncio
from collections.abc import Callable, Iterable

from strongroom.aio.connection import AsyncConnection
from strongroom.client.stores import _LOOK_SECONDS, _silent
from strongroom.connection import LONG_DEADLINE
from strongroom.models.v1 import stores_pb2, stores_pb2_grpc
from strongroom.retries import Repeat


class Stores:
    """The stores of an installation: one primary, any number of replicas."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = stores_pb2_grpc.StoreServiceStub(connection.channel)

    async def show(self) -> stores_pb2.ListStoresResponse:
        """Every store, the primary first: whether it answers, and how far it is behind."""
        return await self._connection.call(self._stub.ListStores, stores_pb2.ListStoresRequest(), repeat=Repeat.SAFE)

    async def sync(self, *stores: str) -> stores_pb2.SyncStoresResponse:
        """Has these stores compared with what they shall have, all if none is named. Returns before that is done."""
        request = stores_pb2.SyncStoresRequest(stores=stores)
        return await self._connection.call(self._stub.SyncStores, request, repeat=Repeat.SAFE)

    async def wait(
        self, *stores: str, report: Callable[[Iterable[stores_pb2.Store]], None] = _silent
    ) -> list[stores_pb2.Store]:
        """Waits until the stores, all if none is named, lack nothing; those that do not answer are not waited for."""
        while True:
            shown = [store for store in (await self.show()).stores if not stores or store.name in stores]
            report(shown)
            if not any(store.healthy and (store.repairing or store.pending_objects) for store in shown):
                return shown
            await asyncio.sleep(_LOOK_SECONDS)

    async def rebuild(
        self,
        *,
        store: str = "",
        dry_run: bool = False,
        accept_losses: bool = False,
        include_unencrypted: bool = False,
    ) -> stores_pb2.RebuildIndexResponse:
        """Makes the index of versions and chunks anew out of what the stores hold."""
        request = stores_pb2.RebuildIndexRequest(
            store=store, dry_run=dry_run, accept_losses=accept_losses, include_unencrypted=include_unencrypted
        )
        return await self._connection.call(self._stub.RebuildIndex, request, repeat=Repeat.SAFE, deadline=LONG_DEADLINE)
