"""Models and their versions."""

from collections.abc import Callable, Iterator
from pathlib import Path

from strongroom import pull as pulling
from strongroom.client.aliases import DEFAULT_MANAGER, Aliases
from strongroom.client.marks import transfer
from strongroom.client.paging import pages
from strongroom.connection import LONG_DEADLINE, Connection
from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2
from strongroom.pull import Pull, PullProgress, PullResult
from strongroom.push import Push, PushProgress, PushResult
from strongroom.retries import Repeat
from strongroom.tensors import MAX_INDEX, Tensor, file_of, index_of, only_file

LATEST = "latest"


def _silent(_progress: PushProgress | PullProgress) -> None:
    return None


class Models:
    """Models and their versions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = models_pb2_grpc.ModelServiceStub(connection.channel)
        self._aliases = Aliases(connection)

    @transfer
    def push(
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
        with self._connection.presenting(access_code) as connection:
            push = Push(connection, manager, name, version, progress, compression_level=compression_level)
            return push.run(Path(source))

    @transfer
    def plan_push(self, name: str, source: str | Path, *, manager: str = DEFAULT_MANAGER) -> PushProgress:
        """How much a push would have to send, in bytes: `total - done`. Sends no weights."""
        return Push(self._connection, manager, name, "", _silent).plan(Path(source))

    @transfer
    def pull(
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
        if alias:
            version = self._aliases.get(name, alias, manager=manager).version
        with self._connection.presenting(access_code) as connection:
            return Pull(connection, manager, name, version, progress, provider).run(destination)

    @transfer
    def read(
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
        request = weights_pb2.ReadFileRequest(
            manager_id=manager,
            model_name=name,
            version=version,
            path=path,
            offset=offset,
            length=length,
            provider=provider,
        )
        with self._connection.presenting(access_code) as connection:
            return pulling.read(connection, request)

    @transfer
    def tensor(
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
        if not path:
            # From here on one version, also if `latest` moves on.
            found = self.show(name, version, manager=manager, access_code=access_code)
            version, paths = found.version, [file.path for file in found.files]
            path = only_file(paths) or ""
        if not path:
            index = index_of(paths)
            content = self.read(
                name,
                index,
                length=MAX_INDEX,
                version=version,
                manager=manager,
                provider=provider,
                access_code=access_code,
            )
            path = file_of(tensor, index, content)
        request = weights_pb2.ReadFileRequest(
            manager_id=manager, model_name=name, version=version, path=path, tensor=tensor, provider=provider
        )
        with self._connection.presenting(access_code) as connection:
            return pulling.read_tensor(connection, request)

    def list(self, *, manager: str = DEFAULT_MANAGER) -> Iterator[models_pb2.Model]:
        """The models of a manager by name: those the caller may read."""
        request = models_pb2.ListModelsRequest(manager_id=manager)
        for page in pages(self._connection, self._stub.ListModels, request):
            yield from page.models

    def versions(self, name: str, *, manager: str = DEFAULT_MANAGER) -> Iterator[models_pb2.Version]:
        """The versions of a model, newest first, without their files."""
        request = models_pb2.ListVersionsRequest(manager_id=manager, model_name=name)
        for page in pages(self._connection, self._stub.ListVersions, request):
            yield from page.versions

    def show(
        self, name: str, version: str = LATEST, *, manager: str = DEFAULT_MANAGER, access_code: str | None = None
    ) -> models_pb2.Version:
        """A version with its files; of a protected one those only with its access code."""
        request = models_pb2.GetVersionRequest(manager_id=manager, model_name=name, version=version)
        with self._connection.presenting(access_code) as connection:
            return connection.call(self._stub.GetVersion, request, repeat=Repeat.SAFE)

    def verify(
        self, name: str, version: str = LATEST, *, manager: str = DEFAULT_MANAGER, access_code: str | None = None
    ) -> models_pb2.VerifyVersionResponse:
        """Has the server read and check every stored byte of a version; of a protected one, without its code, those
        alone, and not what they decrypt to."""
        request = models_pb2.VerifyVersionRequest(manager_id=manager, model_name=name, version=version)
        with self._connection.presenting(access_code) as connection:
            return connection.call(self._stub.VerifyVersion, request, repeat=Repeat.SAFE, deadline=LONG_DEADLINE)

    def delete(
        self, name: str, version: str, *, manager: str = DEFAULT_MANAGER, primary_only: bool = False
    ) -> models_pb2.DeleteVersionResponse:
        """Deletes a version and destroys its data key; or its weights in the primary store alone."""
        request = models_pb2.DeleteVersionRequest(
            manager_id=manager, model_name=name, version=version, primary_only=primary_only
        )
        return self._connection.call(self._stub.DeleteVersion, request)
