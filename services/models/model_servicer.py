"""ModelService."""

import grpc

from services.models.annotations import Annotations
from services.models.manifest_store import ManifestStore
from services.models.messages import timestamp, version_message
from services.models.presented_code import access_code
from services.models.primary_deletion import PrimaryDeletion
from services.models.verify import Verifier
from services.models.versions import Model, Versions
from services.shared.call import answer_header, caller
from services.shared.errors import Aborted
from strongroom.models.v1 import models_pb2 as pb
from strongroom.models.v1 import models_pb2_grpc


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Lists, shows, verifies and deletes versions."""

    def __init__(
        self,
        versions: Versions,
        manifest_store: ManifestStore,
        verifier: Verifier,
        annotations: Annotations,
        in_primary: PrimaryDeletion,
    ) -> None:
        self._versions = versions
        self._annotations = annotations
        self._manifests = manifest_store
        self._verifier = verifier
        self._in_primary = in_primary

    def ListModels(self, request: pb.ListModelsRequest, context: grpc.ServicerContext) -> pb.ListModelsResponse:
        principal = caller(context)

        def visible(name: str) -> bool:
            return principal.allows("models.read", f"managers/{request.manager_id}/models/{name}")

        models, token = self._versions.list_models(request.manager_id, request.page_size, request.page_token, visible)
        return pb.ListModelsResponse(models=map(_model_message, models), next_page_token=token)

    def ListVersions(self, request: pb.ListVersionsRequest, context: grpc.ServicerContext) -> pb.ListVersionsResponse:
        versions, token = self._versions.list_versions(
            request.manager_id, request.model_name, request.page_size, request.page_token
        )
        said = self._annotations.of(versions)
        messages = [version_message(version, notes=said[version.id]) for version in versions]
        return pb.ListVersionsResponse(versions=messages, next_page_token=token)

    def GetVersion(self, request: pb.GetVersionRequest, context: grpc.ServicerContext) -> pb.Version:
        version = self._versions.find(request.manager_id, request.model_name, request.version)
        notes = self._annotations.of([version], whole=True)[version.id]
        answer_header(context, "etag", f'"{notes.etag}"')
        code = access_code(context)
        if version.protected and code is None:
            return version_message(version, notes=notes)
        return version_message(version, self._manifests.load(version, code).files, notes)

    def DeleteVersion(
        self, request: pb.DeleteVersionRequest, context: grpc.ServicerContext
    ) -> pb.DeleteVersionResponse:
        if request.primary_only:
            kept = self._in_primary.delete(request.manager_id, request.model_name, request.version)
            return pb.DeleteVersionResponse(
                manager_id=kept.manager_id, model_name=kept.model_name, version=kept.name, primary_only=True
            )
        deletion = self._versions.delete(request.manager_id, request.model_name, request.version)
        return pb.DeleteVersionResponse(
            manager_id=deletion.version.manager_id,
            model_name=deletion.version.model_name,
            version=deletion.version.name,
            shredded_chunks=deletion.shredded_chunks,
            shared_chunks=deletion.shared_chunks,
        )

    def VerifyVersion(
        self, request: pb.VerifyVersionRequest, context: grpc.ServicerContext
    ) -> pb.VerifyVersionResponse:
        def still_wanted() -> None:
            if not context.is_active():
                raise Aborted("The caller went away before the end of the verification.", reason="CLIENT_GONE")

        result = self._verifier.verify(
            request.manager_id, request.model_name, request.version, still_wanted, access_code(context)
        )
        return pb.VerifyVersionResponse(
            manager_id=result.version.manager_id,
            model_name=result.version.model_name,
            version=result.version.name,
            is_valid=result.is_valid,
            files_checked=result.files_checked,
            bytes_checked=result.bytes_checked,
            problems=result.problems,
        )


def _model_message(model: Model) -> pb.Model:
    return pb.Model(
        manager_id=model.manager_id,
        name=model.name,
        latest_version=model.latest_version,
        versions_count=model.versions_count,
        created_at=timestamp(model.created_at),
        updated_at=timestamp(model.updated_at),
    )
