"""The root key, under which every other key is kept."""
# Made from strongroom/client/root_key.py by `make clients`. Change it there.

from strongroom.aio.connection import AsyncConnection
from strongroom.connection import LONG_DEADLINE
from strongroom.retries import Repeat
from strongroom.secrets.v1 import root_key_pb2, root_key_pb2_grpc


class RootKey:
    """Where the root key is. Needs `system.maintain`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = root_key_pb2_grpc.RootKeyServiceStub(connection.channel)

    async def show(self) -> root_key_pb2.GetRootKeyResponse:
        """The root key in use, and what a move has not come to."""
        return await self._connection.call(self._stub.GetRootKey, root_key_pb2.GetRootKeyRequest(), repeat=Repeat.SAFE)

    async def move(self, name: str) -> root_key_pb2.MoveRootKeyResponse:
        """Moves to the root key of this name, to the end; `rewrapped` counts all of it."""
        request, rewrapped = root_key_pb2.MoveRootKeyRequest(name=name), 0
        while True:
            done = await self._connection.call(
                self._stub.MoveRootKey, request, repeat=Repeat.NEVER, deadline=LONG_DEADLINE
            )
            rewrapped += done.rewrapped
            if not done.left:
                done.rewrapped = rewrapped
                return done
