"""Models and their versions."""
# Made from strongroom/client/models.py by `make clients`. Change it there.

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from strongroom.aio.aliases import Aliases
from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.client import models as blocking
from strongroom.client.aliases import DEFAULT_MANAGER
from strongroom.client.models import LATEST, _silent
from strongroom.connection import LONG_DEADLINE
from strongroom.models.v1 import models_pb2, models_pb2_grpc
from strongroom.pull import PullProgress, PullResult
from strongroom.push import PushProgress, PushResult
from strongroom.retries import Repeat
from strongroom.tensors import Tensor


class Models:
    """Models and their versions."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = models_pb2_grpc.ModelServiceStub(connection.channel)
        self._aliases = Aliases(connection)

    async def push(
        self,
        name: str,
        source: str | Path,
        *,
        version: str = "",
        manager: str = DEFAULT_MANAGER,
        compression_level: int = 0,
        access_code: str | None = None,
        progress: Callable[[PushProgress], None] = _silent,
    ) -> PushResult:
        """Uploads a file or folder as a new version; without a name the version gets the time's.

        Sends only chunks that the manager has not got. Interrupted, it continues when it is called again. With a
        `compression_level` of 1 (fastest) to 9 (smallest) the service compresses what is new and shrinks. With an
        `access_code` the version is protected by it: nobody opens it without, administrators neither.
        """
        return await self._connection.transferred(
            lambda connection: blocking.Models(connection).push(
                name,
                source,
                version=version,
                manager=manager,
                compression_level=compression_level,
                access_code=access_code,
                progress=self._connection.here(progress),
            )
        )

    async def plan_push(self, name: str, source: str | Path, *, manager: str = DEFAULT_MANAGER) -> PushProgress:
        """How much a push would have to send, in bytes: `total - done`. Sends no weights."""
        return await self._connection.transferred(
            lambda connection: blocking.Models(connection).plan_push(name, source, manager=manager)
        )

    async def pull(
        self,
        name: str,
        destination: str | Path,
        *,
        alias: str = "",
        version: str = LATEST,
        manager: str = DEFAULT_MANAGER,
        provider: str = "",
        access_code: str | None = None,
        progress: Callable[[PullProgress], None] = _silent,
    ) -> PullResult:
        """Downloads a version, or the one an alias names now, and checks the SHA-256 of every file.

        A single file goes to `destination` unless that is a folder or ends in `/`; several go below it. `provider`
        names the store to read first, or is `aws`, `gcp`, `azure` or `local`; where it fails the others are read.
        """
        return await self._connection.transferred(
            lambda connection: blocking.Models(connection).pull(
                name,
                destination,
                alias=alias,
                version=version,
                manager=manager,
                provider=provider,
                access_code=access_code,
                progress=self._connection.here(progress),
            )
        )

    async def read(
        self,
        name: str,
        path: str,
        *,
        offset: int = 0,
        length: int | None = None,
        version: str = LATEST,
        manager: str = DEFAULT_MANAGER,
        provider: str = "",
        access_code: str | None = None,
    ) -> bytes:
        """Reads `length` bytes of a file from `offset` on, fetching and checking only the chunks they touch.

        `provider`: the store to read first, as in `pull`.
        """
        return await self._connection.transferred(
            lambda connection: blocking.Models(connection).read(
                name,
                path,
                offset=offset,
                length=length,
                version=version,
                manager=manager,
                provider=provider,
                access_code=access_code,
            )
        )

    async def tensor(
        self,
        name: str,
        tensor: str,
        *,
        path: str = "",
        version: str = LATEST,
        manager: str = DEFAULT_MANAGER,
        provider: str = "",
        access_code: str | None = None,
    ) -> Tensor:
        """One tensor of a version, fetching and checking only the chunks that it and its file's header touch.

        Without `path` it is looked for in the version's only safetensors file, or where the index of several says.
        `provider`: the store to read first, as in `pull`.
        """
        return await self._connection.transferred(
            lambda connection: blocking.Models(connection).tensor(
                name, tensor, path=path, version=version, manager=manager, provider=provider, access_code=access_code
            )
        )

    async def list(self, *, manager: str = DEFAULT_MANAGER) -> AsyncIterator[models_pb2.Model]:
        """The models of a manager by name: those the caller may read."""
        request = models_pb2.ListModelsRequest(manager_id=manager)
        async for page in pages(self._connection, self._stub.ListModels, request):
            for each in page.models:
                yield each

    async def versions(self, name: str, *, manager: str = DEFAULT_MANAGER) -> AsyncIterator[models_pb2.Version]:
        """The versions of a model, newest first, without their files."""
        request = models_pb2.ListVersionsRequest(manager_id=manager, model_name=name)
        async for page in pages(self._connection, self._stub.ListVersions, request):
            for each in page.versions:
                yield each

    async def show(
        self, name: str, version: str = LATEST, *, manager: str = DEFAULT_MANAGER, access_code: str | None = None
    ) -> models_pb2.Version:
        """A version with its files; of a protected one those only with its access code."""
        request = models_pb2.GetVersionRequest(manager_id=manager, model_name=name, version=version)
        with self._connection.presenting(access_code) as connection:
            return await connection.call(self._stub.GetVersion, request, repeat=Repeat.SAFE)

    async def verify(
        self, name: str, version: str = LATEST, *, manager: str = DEFAULT_MANAGER, access_code: str | None = None
    ) -> models_pb2.VerifyVersionResponse:
        """Has the server read and check every stored byte of a version; of a protected one, without its code, those
        alone, and not what they decrypt to."""
        request = models_pb2.VerifyVersionRequest(manager_id=manager, model_name=name, version=version)
        with self._connection.presenting(access_code) as connection:
            return await connection.call(self._stub.VerifyVersion, request, repeat=Repeat.SAFE, deadline=LONG_DEADLINE)

    async def delete(
        self, name: str, version: str, *, manager: str = DEFAULT_MANAGER, primary_only: bool = False
    ) -> models_pb2.DeleteVersionResponse:
        """Deletes a version and destroys its data key; or its weights in the primary store alone."""
        request = models_pb2.DeleteVersionRequest(
            manager_id=manager, model_name=name, version=version, primary_only=primary_only
        )
        return await self._connection.call(self._stub.DeleteVersion, request)
