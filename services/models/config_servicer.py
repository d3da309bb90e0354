"""ConfigService."""

import grpc
from google.protobuf import empty_pb2, struct_pb2

from services.models.jobs.configs import Config, Configs
from services.models.jobs.runner_catalog import RunnerCatalog
from services.models.messages import bare_list, plain, struct, timestamp
from services.shared.call import answer_header, caller
from strongroom.models.v1 import configs_pb2 as pb
from strongroom.models.v1 import configs_pb2_grpc


class ConfigServicer(configs_pb2_grpc.ConfigServiceServicer):
    """What is trained, and how."""

    def __init__(self, configs: Configs, runners: RunnerCatalog) -> None:
        self._configs = configs
        self._runners = runners

    def GetConfigSchema(self, request: pb.GetConfigSchemaRequest, context: grpc.ServicerContext) -> struct_pb2.Struct:
        return struct(self._runners.schema(request.runner))

    def CreateConfig(self, request: pb.CreateConfigRequest, context: grpc.ServicerContext) -> pb.Config:
        return _message(self._configs.create(request.id, request.name, plain(request.data), caller(context).id))

    def ListConfigs(self, request: pb.ListConfigsRequest, context: grpc.ServicerContext) -> pb.ListConfigsResponse:
        configs, token = self._list(request, context)
        return pb.ListConfigsResponse(configs=map(_message, configs), next_page_token=token)

    def EnumerateConfigs(self, request: pb.ListConfigsRequest, context: grpc.ServicerContext) -> struct_pb2.ListValue:
        configs, token = self._list(request, context)
        if token:
            answer_header(context, "next-page-token", token)
        return bare_list(map(_message, configs))

    def GetConfig(self, request: pb.GetConfigRequest, context: grpc.ServicerContext) -> pb.Config:
        return _message(self._configs.get(request.id))

    def UpdateConfig(self, request: pb.UpdateConfigRequest, context: grpc.ServicerContext) -> pb.Config:
        return _message(self._configs.update(request.id, request.name, plain(request.data)))

    def DeleteConfig(self, request: pb.DeleteConfigRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self._configs.delete(request.id)
        return empty_pb2.Empty()

    def _list(self, request: pb.ListConfigsRequest, context: grpc.ServicerContext) -> tuple[list[Config], str]:
        principal = caller(context)
        return self._configs.list(
            request.page_size, request.page_token, lambda id_: principal.allows("configs.read", f"configs/{id_}")
        )


def _message(config: Config) -> pb.Config:
    return pb.Config(
        id=config.id,
        name=config.name,
        data=struct(config.data),
        created_at=timestamp(config.created_at),
        updated_at=timestamp(config.updated_at),
    )
