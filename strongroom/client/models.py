"""Models and their versions."""

from collections.abc import Callable, Iterator
from pathlib import Path

from strongroom import pull as pulling
from strongroom.client.paging import pages
from strongroom.connection import LONG_DEADLINE, Connection
from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2
from strongroom.pull import Pull, PullProgress, PullResult
from strongroom.push import Push, PushProgress, PushResult
from strongroom.retries import Repeat

DEFAULT_MANAGER = "default"
LATEST = "latest"


def _silent(_progress: PushProgress | PullProgress) -> None:
    return None


class Models:
    """Models and their versions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = models_pb2_grpc.ModelServiceStub(connection.channel)

    def push(
        self,
        name: str,
        source: str | Path,
        *,
        version: str = "",
        manager: str = DEFAULT_MANAGER,
        progress: Callable[[PushProgress], None] = _silent,
    ) -> PushResult:
        """Uploads a file or folder as a new version; without a name the version gets the time's.

        Sends only chunks that the manager has not got. Interrupted, it continues when it is called again.
        """
        return Push(self._connection, manager, name, version, progress).run(Path(source))

    def plan_push(self, name: str, source: str | Path, *, manager: str = DEFAULT_MANAGER) -> PushProgress:
        """How much a push would have to send, in bytes: `total - done`. Sends no weights."""
        return Push(self._connection, manager, name, "", _silent).plan(Path(source))

    def pull(
        self,
        name: str,
        destination: str | Path,
        *,
        version: str = LATEST,
        manager: str = DEFAULT_MANAGER,
        provider: str = "",
        progress: Callable[[PullProgress], None] = _silent,
    ) -> PullResult:
        """Downloads a version and checks the SHA-256 of every file.

        A single file goes to `destination` unless that is a folder or ends in `/`; several go below it. `provider`
        names the store to read first, or is `aws`, `gcp`, `azure` or `local`; where it fails the others are read.
        """
        return Pull(self._connection, manager, name, version, progress, provider).run(destination)

    def read(
        self,
        name: str,
        path: str,
        *,
        offset: int = 0,
        length: int | None = None,
        version: str = LATEST,
        manager: str = DEFAULT_MANAGER,
    ) -> bytes:
        """Reads `length` bytes of a file from `offset` on, fetching and checking only the chunks they touch."""
        request = weights_pb2.ReadFileRequest(
            manager_id=manager, model_name=name, version=version, path=path, offset=offset, length=length
        )
        return pulling.read(self._connection, request)

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

    def show(self, name: str, version: str = LATEST, *, manager: str = DEFAULT_MANAGER) -> models_pb2.Version:
        """A version with its files."""
        request = models_pb2.GetVersionRequest(manager_id=manager, model_name=name, version=version)
        return self._connection.call(self._stub.GetVersion, request, repeat=Repeat.SAFE)

    def verify(
        self, name: str, version: str = LATEST, *, manager: str = DEFAULT_MANAGER
    ) -> models_pb2.VerifyVersionResponse:
        """Has the server read and check every stored byte of a version."""
        request = models_pb2.VerifyVersionRequest(manager_id=manager, model_name=name, version=version)
        return self._connection.call(self._stub.VerifyVersion, request, repeat=Repeat.SAFE, deadline=LONG_DEADLINE)

    def delete(
        self, name: str, version: str, *, manager: str = DEFAULT_MANAGER, primary_only: bool = False
    ) -> models_pb2.DeleteVersionResponse:
        """Deletes a version and destroys its data key; or its weights in the primary store alone."""
        request = models_pb2.DeleteVersionRequest(
            manager_id=manager, model_name=name, version=version, primary_only=primary_only
        )
        return self._connection.call(self._stub.DeleteVersion, request)
