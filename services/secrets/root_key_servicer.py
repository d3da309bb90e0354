"""RootKeyService: requests to the generations and their move, and back."""

import grpc
from google.protobuf import timestamp_pb2

from services.secrets.root_generations import Generation, RootGenerations
from services.secrets.root_keys.source import RootKeySource
from services.secrets.root_move import RootMove
from services.shared.errors import DomainError
from strongroom.secrets.v1 import root_key_pb2 as pb
from strongroom.secrets.v1 import root_key_pb2_grpc


class RootKeyServicer(root_key_pb2_grpc.RootKeyServiceServicer):
    """Serves administrators."""

    def __init__(self, source: RootKeySource, generations: RootGenerations, move: RootMove) -> None:
        self._source = source
        self._generations = generations
        self._move = move

    def GetRootKey(self, request: pb.GetRootKeyRequest, context: grpc.ServicerContext) -> pb.GetRootKeyResponse:
        shown = [self._shown(generation) for generation in self._generations.listing()]
        return pb.GetRootKeyResponse(generations=shown, configured=self._source.names())

    def MoveRootKey(self, request: pb.MoveRootKeyRequest, context: grpc.ServicerContext) -> pb.MoveRootKeyResponse:
        step = self._move.move(request.name)
        current = step.current
        return pb.MoveRootKeyResponse(
            generation=current.number, name=current.name, rewrapped=step.rewrapped, left=step.left
        )

    def _shown(self, generation: Generation) -> pb.RootKeyGeneration:
        made = timestamp_pb2.Timestamp()
        made.FromDatetime(generation.created_at)
        shown = pb.RootKeyGeneration(
            generation=generation.number, name=generation.name, created_at=made, keks=generation.keks
        )
        try:
            root = self._source.open(generation.name)
        except DomainError as error:
            # What runs does not need it any more; a restart would.
            shown.place = error.message
        else:
            shown.kind, shown.place = root.kind, root.place
        return shown
