"""What is said about models and versions: cards, tags, stages, lineage; and search."""

from collections.abc import Iterable, Iterator, Mapping, Set

from strongroom.client.aliases import DEFAULT_MANAGER
from strongroom.client.paging import pages
from strongroom.connection import Connection
from strongroom.errors import Conflict
from strongroom.models.v1 import catalog_pb2 as pb
from strongroom.models.v1 import catalog_pb2_grpc, models_pb2, models_pb2_grpc
from strongroom.retries import Repeat

# How often a change is made again because somebody else was faster.
_ROUNDS = 10


class Catalog:
    """What is said about models and versions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = catalog_pb2_grpc.CatalogServiceStub(connection.channel)
        self._models = models_pb2_grpc.ModelServiceStub(connection.channel)

    def model(self, name: str, *, manager: str = DEFAULT_MANAGER) -> pb.ModelEntry:
        """A model with its card, tags and aliases."""
        request = pb.GetModelRequest(manager_id=manager, model_name=name)
        return self._connection.call(self._stub.GetModel, request, repeat=Repeat.SAFE)

    def update_model(
        self,
        name: str,
        *,
        card: str | None = None,
        tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] = (),
        manager: str = DEFAULT_MANAGER,
    ) -> pb.ModelEntry:
        """Changes what is given, and leaves the rest as it is, also what others change meanwhile."""
        gone = set(remove_tags)
        for _ in range(_ROUNDS):
            now = self.model(name, manager=manager)
            request = pb.UpdateModelRequest(
                manager_id=manager,
                model_name=name,
                card=now.card if card is None else card,
                tags=_merged(now.tags, tags or {}, gone),
                etag=now.etag,
            )
            try:
                return self._connection.call(self._stub.UpdateModel, request)
            except Conflict as conflict:
                refused = conflict
        raise refused

    def update_version(
        self,
        name: str,
        version: str,
        *,
        card: str | None = None,
        tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] = (),
        manager: str = DEFAULT_MANAGER,
    ) -> models_pb2.Version:
        """Changes what is given, and leaves the rest as it is, also what others change meanwhile."""
        gone = set(remove_tags)
        for _ in range(_ROUNDS):
            asked = models_pb2.GetVersionRequest(manager_id=manager, model_name=name, version=version)
            now = self._connection.call(self._models.GetVersion, asked, repeat=Repeat.SAFE)
            request = pb.UpdateVersionRequest(
                manager_id=manager,
                model_name=name,
                version=now.version,
                card=now.card if card is None else card,
                tags=_merged(now.tags, tags or {}, gone),
                etag=now.etag,
            )
            try:
                return self._connection.call(self._stub.UpdateVersion, request)
            except Conflict as conflict:
                refused = conflict
        raise refused

    def set_stage(
        self, name: str, version: str, stage: str, *, manager: str = DEFAULT_MANAGER, etag: str = ""
    ) -> models_pb2.Version:
        """Moves a version to `none`, `development`, `staging`, `production` or `archived`."""
        request = pb.SetStageRequest(manager_id=manager, model_name=name, version=version, stage=stage, etag=etag)
        return self._connection.call(self._stub.SetStage, request)

    def set_parents(
        self, name: str, version: str, parents: Iterable[pb.Parent], *, manager: str = DEFAULT_MANAGER, etag: str = ""
    ) -> pb.SetParentsResponse:
        """Replaces what a version was made from."""
        request = pb.SetParentsRequest(manager_id=manager, model_name=name, version=version, parents=parents, etag=etag)
        return self._connection.call(self._stub.SetParents, request)

    def lineage(self, name: str, version: str, *, manager: str = DEFAULT_MANAGER) -> pb.GetLineageResponse:
        """What a version was made from, and what was made from it."""
        request = pb.GetLineageRequest(manager_id=manager, model_name=name, version=version)
        return self._connection.call(self._stub.GetLineage, request, repeat=Repeat.SAFE)

    def search_models(
        self,
        *,
        regex: str = "",
        query: str = "",
        tags: Mapping[str, str] | None = None,
        manager: str = DEFAULT_MANAGER,
    ) -> Iterator[pb.ModelEntry]:
        """Models by what is in their name, card and tags."""
        request = pb.SearchModelsRequest(manager_id=manager, regex=regex, query=query, tags=_listed(tags))
        for page in pages(self._connection, self._stub.SearchModels, request):
            yield from page.models

    def search_versions(
        self,
        *,
        model: str = "",
        regex: str = "",
        query: str = "",
        tags: Mapping[str, str] | None = None,
        stage: str = "",
        manager: str = DEFAULT_MANAGER,
    ) -> Iterator[models_pb2.Version]:
        """Versions by what is in `model@version`, card and tags, and by stage."""
        request = pb.SearchVersionsRequest(
            manager_id=manager, model=model, regex=regex, query=query, tags=_listed(tags), stage=stage
        )
        for page in pages(self._connection, self._stub.SearchVersions, request):
            yield from page.versions


def _merged(now: Mapping[str, str], new: Mapping[str, str], gone: Set[str]) -> dict[str, str]:
    return {name: value for name, value in {**now, **new}.items() if name not in gone}


def _listed(tags: Mapping[str, str] | None) -> list[str]:
    return [f"{name}={value}" for name, value in (tags or {}).items()]
