"""Why somebody may or may not do something."""
# Made from strongroom/client/access.py by `make clients`. Change it there.

from strongroom.aio.connection import AsyncConnection
from strongroom.auth.v1 import access_pb2 as pb
from strongroom.auth.v1 import access_pb2_grpc
from strongroom.retries import Repeat


class Access:
    """Decisions, explained by the rules that make them."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = access_pb2_grpc.AccessServiceStub(connection.channel)

    async def explain(self, principal: str, method: str, resource: str = "") -> pb.ExplainAccessResponse:
        """Says which grant allows or denies it.

        Args:
            principal: `key:<id>`, `user:<id or e-mail>`, `role:<name>`, `set:<permission set>` or `self`.
            method: such as `CommitUpload`, or a permission such as `models.write`.
            resource: such as `managers/fraud/models/scorer`.
        """
        request = pb.ExplainAccessRequest(principal=principal, method=method, resource=resource)
        return await self._connection.call(self._stub.ExplainAccess, request, repeat=Repeat.SAFE)
