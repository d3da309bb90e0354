"""MlArtifactService."""

from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2

from services.models.jobs.ml_artifacts import ArtifactTooLarge, MlArtifact, MlArtifacts, Node
from services.models.messages import bare_list, plain_value, timestamp
from services.shared.call import answer_header, caller
from services.shared.errors import PermissionMissing
from strongroom.models.v1 import ml_artifacts_pb2 as pb
from strongroom.models.v1 import ml_artifacts_pb2_grpc

_MAX_BYTES = 16 << 20


class MlArtifactServicer(ml_artifacts_pb2_grpc.MlArtifactServiceServicer):
    """What jobs make."""

    def __init__(self, artifacts: MlArtifacts) -> None:
        self._artifacts = artifacts

    def CreateMlArtifact(self, request: pb.CreateMlArtifactRequest, context: grpc.ServicerContext) -> pb.MlArtifact:
        if request.data.ByteSize() > _MAX_BYTES:
            raise ArtifactTooLarge(f"The data of an artifact has at most {_MAX_BYTES >> 20} MiB as a message.")
        return _message(
            *self._artifacts.create(request.id, request.parent_id, plain_value(request.data), caller(context).id)
        )

    def ListMlArtifacts(
        self, request: pb.ListMlArtifactsRequest, context: grpc.ServicerContext
    ) -> pb.ListMlArtifactsResponse:
        artifacts, token = self._list(request, context)
        return pb.ListMlArtifactsResponse(artifacts=map(_message, artifacts), next_page_token=token)

    def EnumerateMlArtifacts(
        self, request: pb.ListMlArtifactsRequest, context: grpc.ServicerContext
    ) -> struct_pb2.ListValue:
        artifacts, token = self._list(request, context)
        if token:
            answer_header(context, "next-page-token", token)
        return bare_list(map(_message, artifacts))

    def GetMlArtifact(self, request: pb.GetMlArtifactRequest, context: grpc.ServicerContext) -> pb.MlArtifact:
        return _message(*self._artifacts.read(request.id))

    def GetMlArtifactTree(
        self, request: pb.GetMlArtifactTreeRequest, context: grpc.ServicerContext
    ) -> pb.MlArtifactTree:
        principal = caller(context)
        return _tree(
            self._artifacts.tree(request.id, lambda id_: principal.allows("artifacts.read", f"artifacts/ml/{id_}"))
        )

    def DeleteMlArtifact(self, request: pb.DeleteMlArtifactRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        artifact = self._artifacts.get(request.id)
        model = f"managers/{artifact.manager_id}/models/{artifact.model_name}"
        if artifact.version and not caller(context).allows("models.delete", model):
            raise PermissionMissing("models.delete", model)
        self._artifacts.delete(request.id)
        return empty_pb2.Empty()

    def _list(self, request: pb.ListMlArtifactsRequest, context: grpc.ServicerContext) -> tuple[list[MlArtifact], str]:
        principal = caller(context)
        return self._artifacts.list(
            request.page_size,
            request.page_token,
            lambda id_: principal.allows("artifacts.read", f"artifacts/ml/{id_}"),
        )


def _message(artifact: MlArtifact, data: Any = None) -> pb.MlArtifact:
    return pb.MlArtifact(
        id=artifact.id,
        parent_id=_text_or_null(artifact.parent_id),
        level=artifact.level,
        data=json_format.ParseDict(data, struct_pb2.Value()),
        created_at=timestamp(artifact.created_at),
        updated_at=timestamp(artifact.updated_at),
        url=artifact.url,
        job_id=artifact.job_id,
        config_id=artifact.config_id,
    )


def _tree(node: Node) -> pb.MlArtifactTree:
    artifact = node.artifact
    return pb.MlArtifactTree(
        id=artifact.id,
        parent_id=_text_or_null(artifact.parent_id),
        level=artifact.level,
        created_at=timestamp(artifact.created_at),
        updated_at=timestamp(artifact.updated_at),
        url=artifact.url,
        job_id=artifact.job_id,
        config_id=artifact.config_id,
        children=map(_tree, node.children),
    )


def _text_or_null(text: str | None) -> struct_pb2.Value:
    return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE) if text is None else struct_pb2.Value(string_value=text)
