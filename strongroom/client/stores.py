"""Where weights are kept."""

import time
from collections.abc import Callable, Iterable

from strongroom.connection import LONG_DEADLINE, Connection
from strongroom.models.v1 import stores_pb2, stores_pb2_grpc
from strongroom.retries import Repeat

_LOOK_SECONDS = 0.5


def _silent(_stores: Iterable[stores_pb2.Store]) -> None:
    return None


class Stores:
    """The stores of an installation: one primary, any number of replicas."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = stores_pb2_grpc.StoreServiceStub(connection.channel)

    def show(self) -> stores_pb2.ListStoresResponse:
        """Every store, the primary first: whether it answers, and how far it is behind."""
        return self._connection.call(self._stub.ListStores, stores_pb2.ListStoresRequest(), repeat=Repeat.SAFE)

    def sync(self, *stores: str) -> stores_pb2.SyncStoresResponse:
        """Has these stores compared with what they shall have, all if none is named. Returns before that is done."""
        request = stores_pb2.SyncStoresRequest(stores=stores)
        return self._connection.call(self._stub.SyncStores, request, repeat=Repeat.SAFE)

    def wait(
        self, *stores: str, report: Callable[[Iterable[stores_pb2.Store]], None] = _silent
    ) -> list[stores_pb2.Store]:
        """Waits until the stores, all if none is named, lack nothing; those that do not answer are not waited for."""
        while True:
            shown = [store for store in self.show().stores if not stores or store.name in stores]
            report(shown)
            if not any(store.healthy and (store.repairing or store.pending_objects) for store in shown):
                return shown
            time.sleep(_LOOK_SECONDS)

    def rebuild(
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
        return self._connection.call(self._stub.RebuildIndex, request, repeat=Repeat.SAFE, deadline=LONG_DEADLINE)
