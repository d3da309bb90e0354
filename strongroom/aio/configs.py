"""Configs: what is trained, and how."""
# Made from strongroom/client/configs.py by `make clients`. Change it there.

from collections.abc import AsyncIterator, Mapping
from typing import Any

from google.protobuf import json_format

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.models.v1 import configs_pb2 as pb
from strongroom.models.v1 import configs_pb2_grpc
from strongroom.retries import Repeat


class Configs:
    """What is trained, and how. `data` is what the runner's schema allows."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = configs_pb2_grpc.ConfigServiceStub(connection.channel)

    async def schema(self, runner: str = "") -> dict[str, Any]:
        """The JSON schema of `data`; of the built-in runner if none is named."""
        request = pb.GetConfigSchemaRequest(runner=runner)
        answer = await self._connection.call(self._stub.GetConfigSchema, request, repeat=Repeat.SAFE)
        return dict(json_format.MessageToDict(answer))

    async def create(self, name: str, data: Mapping[str, Any] | None = None, *, config_id: str = "") -> pb.Config:
        """Adds a config; `config_id` is a ULID, made up if empty. Raises AlreadyExists, InvalidArgument."""
        request = pb.CreateConfigRequest(id=config_id, name=name)
        json_format.ParseDict(dict(data or {}), request.data)
        return await self._connection.call(self._stub.CreateConfig, request)

    async def list(self) -> AsyncIterator[pb.Config]:
        """The configs that the caller may read, by id."""
        async for page in pages(self._connection, self._stub.ListConfigs, pb.ListConfigsRequest()):
            for each in page.configs:
                yield each

    async def get(self, config_id: str) -> pb.Config:
        return await self._connection.call(self._stub.GetConfig, pb.GetConfigRequest(id=config_id), repeat=Repeat.SAFE)

    async def update(self, config_id: str, name: str, data: Mapping[str, Any]) -> pb.Config:
        """Replaces name and data."""
        request = pb.UpdateConfigRequest(id=config_id, name=name)
        json_format.ParseDict(dict(data), request.data)
        return await self._connection.call(self._stub.UpdateConfig, request, repeat=Repeat.SAFE)

    async def delete(self, config_id: str) -> None:
        """What was trained with it stays."""
        await self._connection.call(self._stub.DeleteConfig, pb.DeleteConfigRequest(id=config_id))
