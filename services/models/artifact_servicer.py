"""ArtifactService."""

from collections.abc import Mapping, Sequence

import grpc
from google.protobuf import struct_pb2

from services.models import addresses
from services.models.artifact_access import Sight
from services.models.artifact_graph import ArtifactGraph, Cost
from services.models.artifacts import TYPES, Artifact, ArtifactData, ArtifactInvalid, ArtifactNotFound, Artifacts
from services.models.catalog_servicer import expected_etag, with_etag
from services.models.text_search import TextFilter
from services.shared.call import answer_header, caller
from strongroom.models.v1 import artifacts_pb2 as pb
from strongroom.models.v1 import artifacts_pb2_grpc

# Of a bare list, whose caller does not say how long it may be.
_PAGE = 100
_MOST_QUERIES = 100


class ArtifactServicer(artifacts_pb2_grpc.ArtifactServiceServicer):
    """The registry of artifacts."""

    def __init__(self, artifacts: Artifacts, graph: ArtifactGraph) -> None:
        self._artifacts = artifacts
        self._graph = graph

    def RegisterArtifact(self, request: pb.RegisterArtifactRequest, context: grpc.ServicerContext) -> pb.Artifact:
        data = ArtifactData(request.url, int(request.size_bytes), request.readme, _needs(request.dependencies))
        made = self._artifacts.register(request.artifact_type, request.name, data, caller(context).id, _sight(context))
        return self._message(made, context)

    def GetArtifact(self, request: pb.GetArtifactRequest, context: grpc.ServicerContext) -> pb.Artifact:
        return self._message(self._artifacts.get(request.artifact_type, request.id), context)

    def UpdateArtifact(self, request: pb.UpdateArtifactRequest, context: grpc.ServicerContext) -> pb.Artifact:
        if request.metadata.id not in ("", request.id) or request.metadata.type not in ("", request.artifact_type):
            raise ArtifactInvalid("`metadata` is that of another artifact than the path names.")
        data = request.data
        changed = self._artifacts.update(
            request.artifact_type,
            request.id,
            request.metadata.name,
            ArtifactData(data.url, int(data.size_bytes), data.readme, _needs(data.dependencies)),
            _sight(context),
            expected=expected_etag(request, context),
        )
        return self._message(changed, context)

    def UnregisterArtifact(self, request: pb.UnregisterArtifactRequest, context: grpc.ServicerContext) -> pb.Artifact:
        gone = self._artifacts.delete(request.artifact_type, request.id, expected=expected_etag(request, context))
        return self._message(gone, context)

    def SearchArtifacts(
        self, request: pb.SearchArtifactsRequest, context: grpc.ServicerContext
    ) -> pb.SearchArtifactsResponse:
        named = {kind: [request.name] if request.name else [] for kind in request.types or TYPES}
        found, token = self._artifacts.search(
            named, TextFilter.of(request.regex), request.page_size, request.page_token, _sight(context)
        )
        return pb.SearchArtifactsResponse(artifacts=map(_metadata, found), next_page_token=token)

    def QueryArtifacts(self, request: pb.QueryArtifactsRequest, context: grpc.ServicerContext) -> struct_pb2.ListValue:
        return self._bare_list(_named(request.queries), TextFilter.of(), request.offset, context)

    def ListArtifactsByName(
        self, request: pb.ListArtifactsByNameRequest, context: grpc.ServicerContext
    ) -> struct_pb2.ListValue:
        named = {kind: [request.name] for kind in TYPES}
        return self._bare_list(named, TextFilter.of(), request.offset, context, some=True)

    def ListArtifactsByRegex(
        self, request: pb.ListArtifactsByRegexRequest, context: grpc.ServicerContext
    ) -> struct_pb2.ListValue:
        return self._bare_list(None, TextFilter.of(request.regex), request.offset, context, some=True)

    def GetArtifactLineage(
        self, request: pb.GetArtifactLineageRequest, context: grpc.ServicerContext
    ) -> pb.GetArtifactLineageResponse:
        nodes, edges = self._graph.lineage(request.artifact_type, request.id, _sight(context))
        return pb.GetArtifactLineageResponse(
            nodes=[pb.ArtifactNode(artifact_id=node.id, name=node.name, source=node.type) for node in nodes],
            edges=[
                pb.ArtifactEdge(
                    from_node_artifact_id=edge.needed, to_node_artifact_id=edge.by, relationship=edge.relationship
                )
                for edge in edges
            ],
        )

    def GetArtifactCost(self, request: pb.GetArtifactCostRequest, context: grpc.ServicerContext) -> struct_pb2.Struct:
        names = (request.artifact_type, request.id, _sight(context))
        answer = struct_pb2.Struct()
        if request.dependency:
            answer.update({id_: _cost(cost) for id_, cost in self._graph.cost(*names).items()})
        else:
            answer.update({request.id: {"total_cost": self._graph.own_cost(*names).total}})
        return answer

    def _bare_list(
        self,
        named: Mapping[str, Sequence[str]] | None,
        text: TextFilter,
        offset: str,
        context: grpc.ServicerContext,
        *,
        some: bool = False,
    ) -> struct_pb2.ListValue:
        """Metadata, and in a header where to go on. With `some`, ArtifactNotFound if there is none at all."""
        found, token = self._artifacts.search(named, text, _PAGE, offset, _sight(context))
        if token:
            answer_header(context, "offset", token)
        elif some and not found and not offset:
            raise ArtifactNotFound("There is no such artifact.")
        answer = struct_pb2.ListValue()
        for item in found:
            answer.add_struct().update({"name": item.name, "id": item.id, "type": item.type})
        return answer

    def _message(self, artifact: Artifact, context: grpc.ServicerContext) -> pb.Artifact:
        sight, data = _sight(context), artifact.data
        message = pb.Artifact(
            metadata=_metadata(artifact),
            data=pb.ArtifactData(
                url=data.url,
                download_url=_download_url(data.url, sight),
                size_bytes=self._graph.size(artifact, sight),
                readme=data.readme,
                dependencies=[
                    pb.ArtifactDependency(artifact_id=id_, relationship=kind)
                    for id_, kind in self._graph.readable_needs(artifact, sight).items()
                ],
            ),
            etag=artifact.etag,
        )
        return with_etag(message, context)


def _sight(context: grpc.ServicerContext) -> Sight:
    return Sight(caller(context))


def _metadata(artifact: Artifact) -> pb.ArtifactMetadata:
    return pb.ArtifactMetadata(name=artifact.name, id=artifact.id, type=artifact.type)


def _needs(dependencies: Sequence[pb.ArtifactDependency]) -> dict[str, str]:
    return {dependency.artifact_id: dependency.relationship for dependency in dependencies}


def _download_url(url: str, sight: Sight) -> str:
    stored = addresses.stored_version(url)
    if stored is None or not sight.model(stored.manager_id, stored.model_name):
        return ""
    return f"/api/v1/managers/{stored.manager_id}/models/{stored.model_name}/versions/{stored.version}"


def _cost(cost: Cost) -> dict[str, float]:
    return {"standalone_cost": cost.standalone, "total_cost": cost.total}


def _named(queries: struct_pb2.ListValue) -> dict[str, list[str]]:
    """Type → names that one of the queries asks for, none of them for all. Raises ArtifactInvalid."""
    if not 1 <= len(queries.values) <= _MOST_QUERIES:
        raise ArtifactInvalid(f"Send a list of 1 to {_MOST_QUERIES} queries.")
    named: dict[str, list[str]] = {}
    every: set[str] = set()
    for value in queries.values:
        fields = value.struct_value.fields
        name = fields["name"].string_value if "name" in fields else ""
        types = [item.string_value for item in fields["types"].list_value.values] if "types" in fields else []
        if not 1 <= len(name) <= 256 or not set(types) <= set(TYPES):
            raise ArtifactInvalid(f"A query has a `name`, `*` for all, and `types` out of {', '.join(TYPES)}.")
        for kind in dict.fromkeys(types) or TYPES:
            named.setdefault(kind, []).append(name)
            if name == "*":
                every.add(kind)
    return {kind: [] if kind in every else names for kind, names in named.items()}
