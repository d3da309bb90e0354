"""The registry of artifacts: models, datasets and code by their addresses."""
# Made from strongroom/client/artifacts.py by `make clients`. Change it there.

from collections.abc import AsyncIterator, Mapping, Sequence

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.models.v1 import artifacts_pb2 as pb
from strongroom.models.v1 import artifacts_pb2_grpc
from strongroom.retries import Repeat


class Artifacts:
    """The registry of artifacts. A type is `model`, `dataset` or `code`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = artifacts_pb2_grpc.ArtifactServiceStub(connection.channel)

    async def register(
        self,
        artifact_type: str,
        url: str,
        *,
        name: str = "",
        size_bytes: int = 0,
        readme: str = "",
        dependencies: Mapping[str, str] | None = None,
    ) -> pb.Artifact:
        """Adds an artifact. `dependencies`: id of another artifact → relationship."""
        request = pb.RegisterArtifactRequest(
            artifact_type=artifact_type,
            url=url,
            name=name,
            size_bytes=size_bytes,
            readme=readme,
            dependencies=[
                pb.ArtifactDependency(artifact_id=id_, relationship=relationship)
                for id_, relationship in (dependencies or {}).items()
            ],
        )
        return await self._connection.call(self._stub.RegisterArtifact, request)

    async def get(self, artifact_type: str, artifact_id: str) -> pb.Artifact:
        request = pb.GetArtifactRequest(artifact_type=artifact_type, id=artifact_id)
        return await self._connection.call(self._stub.GetArtifact, request, repeat=Repeat.SAFE)

    async def update(self, artifact: pb.Artifact) -> pb.Artifact:
        """Writes an artifact back as it is now. Raises Conflict if somebody else has changed it since it was read."""
        metadata = artifact.metadata
        request = pb.UpdateArtifactRequest(
            artifact_type=metadata.type, id=metadata.id, metadata=metadata, data=artifact.data, etag=artifact.etag
        )
        return await self._connection.call(self._stub.UpdateArtifact, request)

    async def unregister(self, artifact_type: str, artifact_id: str) -> pb.Artifact:
        """Removes an artifact from the registry; what it stood for stays."""
        request = pb.UnregisterArtifactRequest(artifact_type=artifact_type, id=artifact_id)
        return await self._connection.call(self._stub.UnregisterArtifact, request)

    async def search(
        self, *, name: str = "", regex: str = "", types: Sequence[str] = ()
    ) -> AsyncIterator[pb.ArtifactMetadata]:
        """Artifacts by name, by a regular expression in name or readme, and by type."""
        request = pb.SearchArtifactsRequest(name=name, regex=regex, types=types)
        async for page in pages(self._connection, self._stub.SearchArtifacts, request):
            for each in page.artifacts:
                yield each

    async def lineage(self, artifact_type: str, artifact_id: str) -> pb.GetArtifactLineageResponse:
        """What an artifact depends on, step by step."""
        request = pb.GetArtifactLineageRequest(artifact_type=artifact_type, id=artifact_id)
        return await self._connection.call(self._stub.GetArtifactLineage, request, repeat=Repeat.SAFE)

    async def cost(
        self, artifact_type: str, artifact_id: str, *, dependency: bool = False
    ) -> dict[str, dict[str, float]]:
        """MB (10^6 bytes) to download, by id: `total_cost`, and with `dependency` also `standalone_cost`.

        Then what it needs is in the total, and each of those in the answer.
        """
        request = pb.GetArtifactCostRequest(artifact_type=artifact_type, id=artifact_id, dependency=dependency)
        answer = await self._connection.call(self._stub.GetArtifactCost, request, repeat=Repeat.SAFE)
        return {
            id_: {name: number.number_value for name, number in value.struct_value.fields.items()}
            for id_, value in answer.fields.items()
        }
