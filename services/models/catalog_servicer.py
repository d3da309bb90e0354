"""CatalogService."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import grpc

from services.models.aliases import Alias, Aliases
from services.models.annotations import Annotations, ModelEntry
from services.models.etags import NEVER_SET
from services.models.lineage import Graph, Lineage, ParentName
from services.models.messages import timestamp, version_message
from services.models.notes import Notes
from services.models.search import Search
from services.models.text_search import TextFilter, parse_tags
from services.models.versions import Version
from services.shared.call import answer_header, caller, header
from services.shared.errors import PermissionDenied
from strongroom.models.v1 import artifacts_pb2, catalog_pb2_grpc, models_pb2
from strongroom.models.v1 import catalog_pb2 as pb

HasEtag = TypeVar("HasEtag", pb.ModelEntry, pb.Alias, pb.SetParentsResponse, models_pb2.Version, artifacts_pb2.Artifact)


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """Shows and changes what is said about models and versions."""

    def __init__(self, annotations: Annotations, aliases: Aliases, lineage: Lineage, search: Search) -> None:
        self._annotations = annotations
        self._aliases = aliases
        self._lineage = lineage
        self._search = search

    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.ModelEntry:
        return _entry_message(self._annotations.model(request.manager_id, request.model_name), context)

    def UpdateModel(self, request: pb.UpdateModelRequest, context: grpc.ServicerContext) -> pb.ModelEntry:
        entry = self._annotations.update_model(
            request.manager_id, request.model_name, request.card, request.tags, expected=expected_etag(request, context)
        )
        return _entry_message(entry, context)

    def UpdateVersion(self, request: pb.UpdateVersionRequest, context: grpc.ServicerContext) -> models_pb2.Version:
        changed = self._annotations.update_version(
            request.manager_id,
            request.model_name,
            request.version,
            request.card,
            request.tags,
            expected=expected_etag(request, context),
        )
        return _version_message(*changed, context)

    def SetStage(self, request: pb.SetStageRequest, context: grpc.ServicerContext) -> models_pb2.Version:
        changed = self._annotations.set_stage(
            request.manager_id,
            request.model_name,
            request.version,
            request.stage,
            expected=expected_etag(request, context),
            leaving=_may_leave(request, context),
        )
        return _version_message(*changed, context)

    def ListAliases(self, request: pb.ListAliasesRequest, context: grpc.ServicerContext) -> pb.ListAliasesResponse:
        page, token = self._aliases.list(request.manager_id, request.model_name, request.page_size, request.page_token)
        return pb.ListAliasesResponse(aliases=map(_alias_message, page), next_page_token=token)

    def GetAlias(self, request: pb.GetAliasRequest, context: grpc.ServicerContext) -> pb.Alias:
        found = self._aliases.get(request.manager_id, request.model_name, request.alias)
        return with_etag(_alias_message(found), context)

    def SetAlias(self, request: pb.SetAliasRequest, context: grpc.ServicerContext) -> pb.Alias:
        moved = self._aliases.set(
            request.manager_id,
            request.model_name,
            request.alias,
            request.version,
            caller(context).id,
            expected=expected_etag(request, context),
            if_better=request.if_better,
        )
        return with_etag(_alias_message(moved), context)

    def DeleteAlias(self, request: pb.DeleteAliasRequest, context: grpc.ServicerContext) -> pb.Alias:
        expected = expected_etag(request, context)
        gone = self._aliases.delete(request.manager_id, request.model_name, request.alias, expected=expected)
        return _alias_message(gone)

    def SetParents(self, request: pb.SetParentsRequest, context: grpc.ServicerContext) -> pb.SetParentsResponse:
        names = (request.manager_id, request.model_name, request.version)
        parents = [ParentName(p.manager_id, p.model_name, p.version, p.uri, p.relationship) for p in request.parents]
        etag = self._lineage.set_parents(*names, parents, _may_read(context), expected=expected_etag(request, context))
        graph = self._lineage.graph(*names, _may_read(context))
        return with_etag(pb.SetParentsResponse(nodes=_nodes(graph), edges=_edges(graph), etag=etag), context)

    def GetLineage(self, request: pb.GetLineageRequest, context: grpc.ServicerContext) -> pb.GetLineageResponse:
        graph = self._lineage.graph(request.manager_id, request.model_name, request.version, _may_read(context))
        return pb.GetLineageResponse(nodes=_nodes(graph), edges=_edges(graph), truncated=graph.truncated)

    def SearchModels(self, request: pb.SearchModelsRequest, context: grpc.ServicerContext) -> pb.SearchModelsResponse:
        found, token = self._search.models(
            request.manager_id,
            TextFilter.of(request.regex, request.query),
            parse_tags(list(request.tags)),
            request.page_size,
            request.page_token,
            _visible(request.manager_id, context),
        )
        return pb.SearchModelsResponse(models=map(_entry_message, found), next_page_token=token)

    def SearchVersions(
        self, request: pb.SearchVersionsRequest, context: grpc.ServicerContext
    ) -> pb.SearchVersionsResponse:
        found, token = self._search.versions(
            request.manager_id,
            request.model,
            TextFilter.of(request.regex, request.query),
            parse_tags(list(request.tags)),
            request.stage,
            request.page_size,
            request.page_token,
            _visible(request.manager_id, context),
        )
        messages = [version_message(version, notes=notes) for version, notes in found]
        return pb.SearchVersionsResponse(versions=messages, next_page_token=token)


def expected_etag(request: Any, context: grpc.ServicerContext) -> str:
    """The etag that the caller wants to find: from the request, else from the headers (RFC 9110, section 13.1)."""
    if request.etag:
        return str(request.etag)
    if header(context, "if-none-match") == "*":
        return NEVER_SET
    return header(context, "if-match").removeprefix("W/").strip('" ')


def with_etag(message: HasEtag, context: grpc.ServicerContext) -> HasEtag:
    """The message, whose etag is a header of the answer as well."""
    answer_header(context, "etag", f'"{message.etag}"')
    return message


def _may_leave(request: pb.SetStageRequest, context: grpc.ServicerContext) -> Callable[[str], None]:
    def leaving(stage: str) -> None:
        resource = f"managers/{request.manager_id}/models/{request.model_name}/stages/{stage}"
        if not caller(context).allows("models.alias", resource):
            message = f"Permission models.alias on {resource} is missing, where the version is now."
            raise PermissionDenied(message, reason="PERMISSION_MISSING", permission="models.alias", resource=resource)

    return leaving


def _may_read(context: grpc.ServicerContext) -> Callable[[str, str], bool]:
    principal = caller(context)
    return lambda manager, name: principal.allows("models.read", f"managers/{manager}/models/{name}")


def _visible(manager_id: str, context: grpc.ServicerContext) -> Callable[[str], bool]:
    may_read = _may_read(context)
    return lambda name: may_read(manager_id, name)


def _entry_message(entry: ModelEntry, context: grpc.ServicerContext | None = None) -> pb.ModelEntry:
    message = pb.ModelEntry(
        manager_id=entry.manager_id,
        name=entry.name,
        latest_version=entry.latest_version,
        versions_count=entry.versions_count,
        created_at=timestamp(entry.created_at),
        updated_at=timestamp(entry.updated_at),
        card=entry.card,
        tags=entry.tags,
        aliases=entry.aliases,
        etag=entry.etag,
    )
    return message if context is None else with_etag(message, context)


def _version_message(version: Version, notes: Notes, context: grpc.ServicerContext) -> models_pb2.Version:
    return with_etag(version_message(version, notes=notes), context)


def _alias_message(alias: Alias) -> pb.Alias:
    return pb.Alias(
        manager_id=alias.manager_id,
        model_name=alias.model_name,
        alias=alias.name,
        version=alias.version,
        etag=alias.etag,
        updated_at=timestamp(alias.updated_at),
        updated_by=alias.updated_by,
        previous_version=alias.previous_version,
    )


def _nodes(graph: Graph) -> Iterable[pb.LineageNode]:
    return (
        pb.LineageNode(
            id=node.id,
            manager_id=node.manager_id,
            model_name=node.model_name,
            version=node.version,
            uri=node.uri,
            deleted=node.deleted,
        )
        for node in graph.nodes
    )


def _edges(graph: Graph) -> Iterable[pb.LineageEdge]:
    return (
        pb.LineageEdge(source=edge.source, target=edge.target, relationship=edge.relationship) for edge in graph.edges
    )
