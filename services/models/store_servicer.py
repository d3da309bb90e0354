"""StoreService."""

import grpc

from services.models.index_identity import IndexIdentity
from services.models.messages import timestamp
from services.models.presented_code import access_code
from services.models.rebuild import Rebuilder, RebuildOptions
from services.models.store_overview import StoreOverview, StoreView
from strongroom.models.v1 import stores_pb2 as pb
from strongroom.models.v1 import stores_pb2_grpc


class StoreServicer(stores_pb2_grpc.StoreServiceServicer):
    """Shows the stores, has them repaired, rebuilds the index from them."""

    def __init__(self, overview: StoreOverview, identity: IndexIdentity, rebuilder: Rebuilder) -> None:
        self._overview = overview
        self._identity = identity
        self._rebuilder = rebuilder

    def ListStores(self, request: pb.ListStoresRequest, context: grpc.ServicerContext) -> pb.ListStoresResponse:
        stores = map(_store_message, self._overview.all())
        return pb.ListStoresResponse(stores=stores, index_problem=self._identity.problem())

    def SyncStores(self, request: pb.SyncStoresRequest, context: grpc.ServicerContext) -> pb.SyncStoresResponse:
        stores = self._overview.request_repair(list(request.stores))
        return pb.SyncStoresResponse(stores=map(_store_message, stores))

    def RebuildIndex(self, request: pb.RebuildIndexRequest, context: grpc.ServicerContext) -> pb.RebuildIndexResponse:
        options = RebuildOptions(request.store, request.dry_run, request.accept_losses, request.include_unencrypted)
        rebuilt = self._rebuilder.rebuild(options, access_code(context))
        return pb.RebuildIndexResponse(**vars(rebuilt))


def _store_message(view: StoreView) -> pb.Store:
    message = pb.Store(
        name=view.name,
        kind=view.kind,
        role="primary" if view.is_primary else "replica",
        pending_objects=view.lag.objects,
        lag_seconds=view.lag_seconds,
        error=view.lag.error,
        repairing=view.repairing,
    )
    if view.state is not None:
        message.healthy = not view.state.error
        message.error = view.state.error or view.lag.error
        message.checked_at.CopyFrom(timestamp(view.state.checked_at))
        if view.state.synced_at is not None:
            message.synced_at.CopyFrom(timestamp(view.state.synced_at))
        if view.state.repaired_at is not None:
            message.repaired_at.CopyFrom(timestamp(view.state.repaired_at))
    return message
