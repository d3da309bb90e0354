"""Configs: what is trained, and how."""

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import json_format

from strongroom.client.paging import pages
from strongroom.connection import Connection
from strongroom.models.v1 import configs_pb2 as pb
from strongroom.models.v1 import configs_pb2_grpc
from strongroom.retries import Repeat


class Configs:
    """What is trained, and how. `data` is what the runner's schema allows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = configs_pb2_grpc.ConfigServiceStub(connection.channel)

    def schema(self, runner: str = "") -> dict[str, Any]:
        """The JSON schema of `data`; of the built-in runner if none is named."""
        request = pb.GetConfigSchemaRequest(runner=runner)
        answer = self._connection.call(self._stub.GetConfigSchema, request, repeat=Repeat.SAFE)
        return dict(json_format.MessageToDict(answer))

    def create(self, name: str, data: Mapping[str, Any] | None = None, *, config_id: str = "") -> pb.Config:
        """Adds a config; `config_id` is a ULID, made up if empty. Raises AlreadyExists, InvalidArgument."""
        request = pb.CreateConfigRequest(id=config_id, name=name)
        json_format.ParseDict(dict(data or {}), request.data)
        return self._connection.call(self._stub.CreateConfig, request)

    def list(self) -> Iterator[pb.Config]:
        """The configs that the caller may read, by id."""
        for page in pages(self._connection, self._stub.ListConfigs, pb.ListConfigsRequest()):
            yield from page.configs

    def get(self, config_id: str) -> pb.Config:
        return self._connection.call(self._stub.GetConfig, pb.GetConfigRequest(id=config_id), repeat=Repeat.SAFE)

    def update(self, config_id: str, name: str, data: Mapping[str, Any]) -> pb.Config:
        """Replaces name and data."""
        request = pb.UpdateConfigRequest(id=config_id, name=name)
        json_format.ParseDict(dict(data), request.data)
        return self._connection.call(self._stub.UpdateConfig, request, repeat=Repeat.SAFE)

    def delete(self, config_id: str) -> None:
        """What was trained with it stays."""
        self._connection.call(self._stub.DeleteConfig, pb.DeleteConfigRequest(id=config_id))
