"""The client.

    from strongroom import Client

    with Client("http://127.0.0.1:8080", api_key=key) as client:
        client.models.push("scorer", "weights.safetensors", version="v1")
        client.models.pull("scorer", "here/", version="v1")
        password = client.secrets.get("prod/db").data["password"]

Methods return the messages of the protos in `strongroom.*.v1` and raise `strongroom.errors.StrongroomError`. Every call
has a deadline; calls that can be repeated without harm are, with growing random waits, while the server is away.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from google.protobuf import json_format, struct_pb2

from strongroom import pull as pulling
from strongroom.auth.v1 import api_keys_pb2, api_keys_pb2_grpc, info_pb2, info_pb2_grpc, tokens_pb2, tokens_pb2_grpc
from strongroom.connection import DEFAULT_URL, LONG_DEADLINE, Connection
from strongroom.errors import InvalidArgument
from strongroom.models.v1 import maintenance_pb2, maintenance_pb2_grpc, models_pb2, models_pb2_grpc, weights_pb2
from strongroom.pull import Pull, PullProgress, PullResult
from strongroom.push import Push, PushProgress, PushResult
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc

DEFAULT_MANAGER = "default"
LATEST = "latest"


def _silent(_progress: PushProgress | PullProgress) -> None:
    return None


class Client:
    """A Strongroom, seen by one caller. Safe to use from several threads; close it, or use it as a context manager.

    Args:
        url: `http://HOST:PORT` or `https://HOST[:PORT]`.
        api_key: an API key; or
        token: an access token.
    """

    def __init__(self, url: str = DEFAULT_URL, *, api_key: str | None = None, token: str | None = None) -> None:
        self._connection = Connection(url, api_key=api_key, token=token)
        self.models = Models(self._connection)
        self.secrets = Secrets(self._connection)
        self.keys = Keys(self._connection)
        self.admin = Admin(self._connection)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
        progress: Callable[[PullProgress], None] = _silent,
    ) -> PullResult:
        """Downloads a version and checks the SHA-256 of every file.

        A single file goes to `destination` unless that is a folder or ends in `/`; several go below it.
        """
        return Pull(self._connection, manager, name, version, progress).run(destination)

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
        return _pages(self._connection, self._stub.ListModels, request, "models")

    def versions(self, name: str, *, manager: str = DEFAULT_MANAGER) -> Iterator[models_pb2.Version]:
        """The versions of a model, newest first, without their files."""
        request = models_pb2.ListVersionsRequest(manager_id=manager, model_name=name)
        return _pages(self._connection, self._stub.ListVersions, request, "versions")

    def show(self, name: str, version: str = LATEST, *, manager: str = DEFAULT_MANAGER) -> models_pb2.Version:
        """A version with its files."""
        request = models_pb2.GetVersionRequest(manager_id=manager, model_name=name, version=version)
        answer: models_pb2.Version = self._connection.call(self._stub.GetVersion, request)
        return answer

    def verify(
        self, name: str, version: str = LATEST, *, manager: str = DEFAULT_MANAGER
    ) -> models_pb2.VerifyVersionResponse:
        """Has the server read and check every stored byte of a version."""
        request = models_pb2.VerifyVersionRequest(manager_id=manager, model_name=name, version=version)
        answer: models_pb2.VerifyVersionResponse = self._connection.call(
            self._stub.VerifyVersion, request, deadline=LONG_DEADLINE
        )
        return answer

    def delete(self, name: str, version: str, *, manager: str = DEFAULT_MANAGER) -> models_pb2.DeleteVersionResponse:
        """Deletes a version and destroys its data key."""
        request = models_pb2.DeleteVersionRequest(manager_id=manager, model_name=name, version=version)
        answer: models_pb2.DeleteVersionResponse = self._connection.call(self._stub.DeleteVersion, request)
        return answer


class Secrets:
    """Secrets: small structured values, versioned."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = secrets_pb2_grpc.SecretServiceStub(connection.channel)

    def put(
        self, name: str, data: Mapping[str, Any], *, expected_version: int | None = None
    ) -> secrets_pb2.SecretVersion:
        """Writes a new version, of a new secret if there is none.

        With `expected_version` only if that is the current one, 0 for none (check-and-set): raises Conflict. Raises
        InvalidArgument for whole numbers that are beyond what is kept exactly: 64-bit floating point.
        """
        _refuse_inexact(data)
        request = secrets_pb2.UpdateSecretRequest(
            name=name,
            data=json_format.ParseDict(dict(data), struct_pb2.Struct()),
            expected_version=expected_version,
            allow_missing=True,
        )
        answer: secrets_pb2.SecretVersion = self._connection.call(self._stub.UpdateSecret, request)
        return answer

    def get(self, name: str, version: int = 0) -> secrets_pb2.GetSecretResponse:
        """Reads a version with its value, the current one if 0."""
        request = secrets_pb2.GetSecretRequest(name=name, version=version)
        answer: secrets_pb2.GetSecretResponse = self._connection.call(self._stub.GetSecret, request)
        return answer

    def list(self, prefix: str = "") -> Iterator[secrets_pb2.SecretSummary]:
        """The secrets the caller may list, by name."""
        request = secrets_pb2.ListSecretsRequest(prefix=prefix)
        return _pages(self._connection, self._stub.ListSecrets, request, "secrets")

    def history(self, name: str) -> Sequence[secrets_pb2.SecretVersion]:
        """The versions of a secret, newest first, without values."""
        request = secrets_pb2.ListSecretVersionsRequest(name=name)
        answer: secrets_pb2.ListSecretVersionsResponse = self._connection.call(self._stub.ListSecretVersions, request)
        return answer.versions

    def delete(self, name: str) -> secrets_pb2.DeleteSecretResponse:
        """Deletes a secret with all versions and destroys its key."""
        request = secrets_pb2.DeleteSecretRequest(name=name)
        answer: secrets_pb2.DeleteSecretResponse = self._connection.call(self._stub.DeleteSecret, request)
        return answer


class Keys:
    """API keys."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = api_keys_pb2_grpc.ApiKeyServiceStub(connection.channel)

    def create(
        self,
        name: str,
        *,
        permission_set: str = "",
        permissions: Sequence[str] = (),
        scopes: Sequence[str] = (),
        description: str = "",
        expires_in_days: int | None = None,
    ) -> api_keys_pb2.ApiKey:
        """Creates a key. Its field `key` is the only place where the whole key is ever shown."""
        request = api_keys_pb2.CreateApiKeyRequest(
            name=name,
            description=description,
            permission_set=permission_set,
            permissions=permissions,
            scopes=scopes,
            expires_in_days=expires_in_days,
        )
        answer: api_keys_pb2.ApiKey = self._connection.call(self._stub.CreateApiKey, request)
        return answer

    def list(self, *, active_only: bool = False) -> Iterator[api_keys_pb2.ApiKey]:
        """Keys, newest first."""
        request = api_keys_pb2.ListApiKeysRequest(active_only=active_only)
        return _pages(self._connection, self._stub.ListApiKeys, request, "api_keys")

    def show(self, key_id: str) -> api_keys_pb2.ApiKey:
        """One key, without its secret."""
        answer: api_keys_pb2.ApiKey = self._connection.call(
            self._stub.GetApiKey, api_keys_pb2.GetApiKeyRequest(id=key_id)
        )
        return answer

    def revoke(self, key_id: str) -> api_keys_pb2.ApiKey:
        """Revokes a key; it fails at the next request."""
        answer: api_keys_pb2.ApiKey = self._connection.call(
            self._stub.RevokeApiKey, api_keys_pb2.RevokeApiKeyRequest(id=key_id)
        )
        return answer

    def sets(self) -> Sequence[api_keys_pb2.PermissionSet]:
        """The permission sets a key can be created with."""
        answer: api_keys_pb2.ListPermissionSetsResponse = self._connection.call(
            self._stub.ListPermissionSets, api_keys_pb2.ListPermissionSetsRequest()
        )
        return answer.permission_sets


class Admin:
    """The installation as a whole."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._info = info_pb2_grpc.InfoServiceStub(connection.channel)
        self._tokens = tokens_pb2_grpc.TokenServiceStub(connection.channel)
        self._maintenance = maintenance_pb2_grpc.MaintenanceServiceStub(connection.channel)

    def health(self) -> info_pb2.GetHealthResponse:
        """Answers once every service can do its work, else raises Unavailable."""
        answer: info_pb2.GetHealthResponse = self._connection.call(self._info.GetHealth, info_pb2.GetHealthRequest())
        return answer

    def caller(self) -> tokens_pb2.GetCallerResponse:
        """Who the caller is and what it may do."""
        answer: tokens_pb2.GetCallerResponse = self._connection.call(
            self._tokens.GetCaller, tokens_pb2.GetCallerRequest()
        )
        return answer

    def collect_garbage(
        self, *, dry_run: bool = False, min_age_seconds: int | None = None
    ) -> maintenance_pb2.CollectGarbageResponse:
        """Removes from the stores what nothing refers to."""
        request = maintenance_pb2.CollectGarbageRequest(dry_run=dry_run, min_age_seconds=min_age_seconds)
        answer: maintenance_pb2.CollectGarbageResponse = self._connection.call(
            self._maintenance.CollectGarbage, request, deadline=LONG_DEADLINE
        )
        return answer


def _refuse_inexact(value: Any) -> None:
    """An account number must not come back with other digits."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            _refuse_inexact(item)
    elif isinstance(value, int) and abs(value) > 2**53:
        message = "A whole number beyond 2^53 would lose digits. Write it as text."
        raise InvalidArgument(message, code="INVALID_ARGUMENT", reason="NUMBER_INEXACT")


def _pages(connection: Connection, method: Any, request: Any, items: str) -> Iterator[Any]:
    """Every item of a listing, page after page."""
    while True:
        answer = connection.call(method, request)
        yield from getattr(answer, items)
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token
