"""Managers, and the models in them by path."""
# Made from strongroom/client/managers.py by `make clients`. Change it there.

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.client import managers as blocking
from strongroom.client.managers import LATEST
from strongroom.connection import LONG_DEADLINE
from strongroom.credential import check_access_code
from strongroom.models.v1 import managers_pb2 as pb
from strongroom.models.v1 import managers_pb2_grpc
from strongroom.retries import Repeat


class Managers:
    """Managers: each has keys, a dedup domain and models of its own.

    Paths are logical names inside a manager, with its `model_path` in front or without.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = managers_pb2_grpc.ManagerServiceStub(connection.channel)

    async def create(
        self,
        task_type: str,
        *,
        manager_id: str = "",
        model_path: str | None = None,
        enable_encryption: bool = True,
        key_iterations: int | None = None,
        hash_algorithm: str | None = None,
        use_scrypt: bool = True,
        enable_quantization: bool = False,
        primary_metric: str | None = None,
    ) -> str:
        """Creates a manager and returns its id, which is made up unless given."""
        request = pb.CreateManagerRequest(
            task_type=task_type,
            manager_id=manager_id,
            model_path=model_path,
            enable_encryption=enable_encryption,
            key_iterations=key_iterations,
            hash_algorithm=hash_algorithm,
            use_scrypt=use_scrypt,
            enable_quantization=enable_quantization,
            primary_metric=primary_metric,
        )
        return (await self._connection.call(self._stub.CreateManager, request)).details.manager_id

    async def list(self) -> AsyncIterator[pb.Manager]:
        """The managers of which the caller may read all models, by id."""
        async for page in pages(self._connection, self._stub.ListManagers, pb.ListManagersRequest()):
            for each in page.managers:
                yield each

    async def get(self, manager_id: str) -> pb.Manager:
        """One manager."""
        request = pb.GetManagerRequest(manager_id=manager_id)
        return await self._connection.call(self._stub.GetManager, request, repeat=Repeat.SAFE)

    async def delete(self, manager_id: str, *, allow_in_use: bool = False) -> None:
        """Deletes a manager with all of its models, and destroys their keys.

        Raises FailedPrecondition while an alias names one of its versions or one is in production, unless allowed.
        """
        request = pb.DeleteManagerRequest(manager_id=manager_id, allow_in_use=allow_in_use)
        await self._connection.call(self._stub.DeleteManager, request, deadline=LONG_DEADLINE)

    async def upload(
        self, manager_id: str, source: str | Path, *, access_code: str | None = None
    ) -> pb.UploadModelResponse.Details:
        """Uploads a file as a version of the model it is named after; where it is then is told.

        `Models.push` sends only what is new, and resumes. Raises OSError; InvalidArgument for an access code that is
        not printable ASCII.
        """
        return await self._connection.transferred(
            lambda connection: blocking.Managers(connection).upload(manager_id, source, access_code=access_code)
        )

    async def rotate_key(self, manager_id: str, *, new_password: str | None = None) -> pb.RotateKeyResponse.Details:
        """Wraps the manager's keys under a new one, random or made of the password. No weights move."""
        request = pb.RotateKeyRequest(manager_id=manager_id, new_password=new_password)
        return (await self._connection.call(self._stub.RotateKey, request)).details

    async def save(
        self,
        manager_id: str,
        model: str,
        path: str | None = None,
        *,
        access_code: str | None = None,
        compression_level: int | None = None,
    ) -> pb.SaveModelResponse.Details:
        """Saves a model's newest version at a path, or at `<model_path>/<model>.pkl`; with a code, protected by it.

        Raises InvalidArgument for an access code that is not printable ASCII.
        """
        if access_code is not None:
            check_access_code(access_code)
        request = pb.SaveModelRequest(
            manager_id=manager_id,
            model_name=model,
            filepath=path,
            access_code=access_code,
            compression_level=compression_level,
        )
        return (await self._connection.call(self._stub.SaveModel, request, deadline=LONG_DEADLINE)).details

    async def load(self, manager_id: str, path: str, *, access_code: str | None = None) -> pb.LoadModelResponse.Details:
        """Opens the model at a path and says what it is."""
        request = pb.LoadModelRequest(manager_id=manager_id, filepath=path, access_code=access_code)
        return (await self._connection.call(self._stub.LoadModel, request, repeat=Repeat.SAFE)).details

    async def verify(self, manager_id: str, path: str) -> pb.VerifyModelResponse:
        """Has the server read and check every stored byte of what is at a path."""
        request = pb.VerifyModelRequest(manager_id=manager_id, filepath=path)
        return await self._connection.call(self._stub.VerifyModel, request, repeat=Repeat.SAFE, deadline=LONG_DEADLINE)

    async def record_metrics(
        self, manager_id: str, model: str, metrics: Mapping[str, float], *, version: str = LATEST
    ) -> dict[str, float]:
        """Sets metrics of a version and returns all it has."""
        request = pb.RecordMetricsRequest(manager_id=manager_id, model_name=model, version=version, metrics=metrics)
        return dict((await self._connection.call(self._stub.RecordMetrics, request, repeat=Repeat.SAFE)).metrics)

    async def metrics(self, manager_id: str, model: str, version: str = LATEST) -> dict[str, float]:
        """The metrics of a version."""
        request = pb.GetMetricsRequest(manager_id=manager_id, model_name=model, version=version)
        return dict((await self._connection.call(self._stub.GetMetrics, request, repeat=Repeat.SAFE)).metrics)
