"""A models service over a real secrets service, and a caller's view of it."""

import base64
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.models import bootstrap
from services.models.settings import ModelsSettings
from services.secrets import bootstrap as secrets_bootstrap
from services.secrets.settings import SecretsSettings
from services.shared.identity import Grant, Principal
from services.shared.service import Service
from services.shared.tokens import TokenVerifier, load_service_keys
from strongroom.chunking import digest
from strongroom.models.v1 import (
    files_pb2,
    files_pb2_grpc,
    maintenance_pb2,
    maintenance_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    stores_pb2,
    stores_pb2_grpc,
    weights_pb2,
    weights_pb2_grpc,
)
from tests.migrated import migrated
from tests.serving import ADMINISTRATOR, TokenMaker, make_identities, make_token_maker, serving
from tests.uploads import chunks_of, uploaded_file

MODEL = "scorer"


def principal(name: str, *permissions: str, resources: tuple[str, ...] = ("**",), deny: str = "") -> Principal:
    """A caller that may do this there, but not read models on `deny`."""
    grants = [Grant("allow", permissions, resources)]
    if deny:
        grants.append(Grant("deny", ("models.read",), (deny,)))
    return Principal(f"key:{name}", name, name, name, tuple(grants))


WRITER = principal("writer", "models.write")
OTHER = principal("other", "models.read", "models.write")


@dataclass
class Clock:
    """A clock that a test moves on."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Caller:
    """What one principal can do; methods named after what a client does, answers as protobuf messages."""

    channel: grpc.Channel
    tokens: TokenMaker
    principal: Principal
    # Presented with every call.
    access_code: str = ""
    manager: str = "default"

    def __post_init__(self) -> None:
        self.models = models_pb2_grpc.ModelServiceStub(self.channel)
        self.weights = weights_pb2_grpc.WeightsServiceStub(self.channel)
        self.files = files_pb2_grpc.FileServiceStub(self.channel)
        self.stores = stores_pb2_grpc.StoreServiceStub(self.channel)
        self.maintenance = maintenance_pb2_grpc.MaintenanceServiceStub(self.channel)

    @property
    def metadata(self) -> list[tuple[str, str]]:
        code = [("x-access-code", self.access_code)] if self.access_code else []
        return [*self.tokens.metadata("models", self.principal), *code]

    def with_code(self, access_code: str) -> "Caller":
        return replace(self, access_code=access_code)

    def call(self, method: Callable[..., Any], request: Any) -> Any:
        return method(request, metadata=self.metadata, timeout=60)

    def create(self, version: str, model: str = MODEL) -> weights_pb2.CreateUploadResponse:
        request = weights_pb2.CreateUploadRequest(manager_id=self.manager, model_name=model, version=version)
        return self.call(self.weights.CreateUpload, request)

    def has(self, upload: str, chunks: Iterable[bytes], model: str = MODEL) -> list[int]:
        digests = b"".join(map(digest, chunks))
        request = weights_pb2.HasChunksRequest(
            manager_id=self.manager, model_name=model, upload_id=upload, digests=digests
        )
        return list(self.call(self.weights.HasChunks, request).present)

    def write(self, upload: str, chunks: Iterable[bytes], model: str = MODEL) -> weights_pb2.WriteChunksResponse:
        frames = (weights_pb2.ChunkFrame(lengths=[len(chunk)], data=chunk) for chunk in chunks)
        return self.write_frames(upload, frames, model)

    def write_frames(
        self, upload: str, frames: Iterable[weights_pb2.ChunkFrame], model: str = MODEL
    ) -> weights_pb2.WriteChunksResponse:
        def messages() -> Iterator[weights_pb2.WriteChunksRequest]:
            header = weights_pb2.WriteChunksHeader(manager_id=self.manager, model_name=model, upload_id=upload)
            yield weights_pb2.WriteChunksRequest(header=header)
            for frame in frames:
                yield weights_pb2.WriteChunksRequest(frame=frame)

        return self.call(self.weights.WriteChunks, messages())

    def commit(
        self, upload: str, files: dict[str, bytes] | list[weights_pb2.UploadedFile], model: str = MODEL
    ) -> models_pb2.Version:
        listed = [uploaded_file(*item) for item in files.items()] if isinstance(files, dict) else files
        request = weights_pb2.CommitUploadRequest(
            manager_id=self.manager, model_name=model, upload_id=upload, files=listed
        )
        return self.call(self.weights.CommitUpload, request)

    def abort(self, upload: str, model: str = MODEL) -> None:
        request = weights_pb2.AbortUploadRequest(manager_id=self.manager, model_name=model, upload_id=upload)
        self.call(self.weights.AbortUpload, request)

    def push(self, version: str, files: dict[str, bytes], model: str = MODEL) -> models_pb2.Version:
        upload = self.create(version, model).upload_id
        self.write(upload, (chunk for item in files.items() for chunk in chunks_of(*item)), model)
        return self.commit(upload, files, model)

    def read(self, version: str, path: str, model: str = MODEL, **span: int) -> bytes:
        request = weights_pb2.ReadFileRequest(
            manager_id=self.manager, model_name=model, version=version, path=path, **span
        )
        return b"".join(answer.data for answer in self.call(self.weights.ReadFile, request))

    def put(self, version: str, path: str, pieces: Iterable[bytes], model: str = MODEL) -> models_pb2.Version:
        return self.call(self.files.PutFile, put_messages(version, path, pieces, model, self.manager))

    def get_file(self, version: str, path: str, **span: int) -> tuple[bytes, str, str]:
        """The bytes, the content type of the first message and the announced length."""
        request = files_pb2.GetFileRequest(
            manager_id=self.manager, model_name=MODEL, version=version, path=path, **span
        )
        answers = self.files.GetFile(request, metadata=self.metadata, timeout=60)
        messages = list(answers)
        length = dict(answers.initial_metadata())["x-content-length"]
        return b"".join(message.data for message in messages), messages[0].content_type, length

    def show(self, version: str, model: str = MODEL) -> models_pb2.Version:
        request = models_pb2.GetVersionRequest(manager_id=self.manager, model_name=model, version=version)
        return self.call(self.models.GetVersion, request)

    def verify(self, version: str, model: str = MODEL) -> models_pb2.VerifyVersionResponse:
        request = models_pb2.VerifyVersionRequest(manager_id=self.manager, model_name=model, version=version)
        return self.call(self.models.VerifyVersion, request)

    def delete(
        self, version: str, model: str = MODEL, *, primary_only: bool = False
    ) -> models_pb2.DeleteVersionResponse:
        request = models_pb2.DeleteVersionRequest(
            manager_id=self.manager, model_name=model, version=version, primary_only=primary_only
        )
        return self.call(self.models.DeleteVersion, request)

    def list_models(self, **page: Any) -> models_pb2.ListModelsResponse:
        return self.call(self.models.ListModels, models_pb2.ListModelsRequest(manager_id=self.manager, **page))

    def list_versions(self, model: str = MODEL, **page: Any) -> models_pb2.ListVersionsResponse:
        request = models_pb2.ListVersionsRequest(manager_id=self.manager, model_name=model, **page)
        return self.call(self.models.ListVersions, request)

    def collect(self, min_age: int | None = 0, *, dry_run: bool = False) -> maintenance_pb2.CollectGarbageResponse:
        request = maintenance_pb2.CollectGarbageRequest(dry_run=dry_run, min_age_seconds=min_age)
        return self.call(self.maintenance.CollectGarbage, request)

    def show_stores(self) -> stores_pb2.ListStoresResponse:
        return self.call(self.stores.ListStores, stores_pb2.ListStoresRequest())

    def sync_stores(self, *stores: str) -> stores_pb2.SyncStoresResponse:
        return self.call(self.stores.SyncStores, stores_pb2.SyncStoresRequest(stores=stores))

    def rebuild(self, **options: Any) -> stores_pb2.RebuildIndexResponse:
        return self.call(self.stores.RebuildIndex, stores_pb2.RebuildIndexRequest(**options))


def put_messages(
    version: str, path: str, pieces: Iterable[bytes], model: str = MODEL, manager: str = "default"
) -> Iterator[files_pb2.PutFileRequest]:
    """What the gateway sends for a PUT."""
    first = files_pb2.PutFileRequest(manager_id=manager, model_name=model, version=version, path=path)
    first.body.content_type = "application/octet-stream"
    yield first
    for piece in pieces:
        message = files_pb2.PutFileRequest()
        message.body.data = piece
        yield message


@dataclass
class Installation:
    """A running secrets service and models service. `admin` may do everything."""

    folder: Path
    tokens: TokenMaker = field(default_factory=make_token_maker)
    clock: Clock = field(default_factory=Clock)
    # Of the models service; empty for files in the folder.
    database_url: str = ""
    address: str = field(init=False)
    channel: grpc.Channel = field(init=False)
    secrets: ExitStack = field(init=False)
    secrets_address: str = field(init=False)
    # The file that says where weights are kept; one folder if None.
    stores: Path | None = None
    # Further settings of the models service.
    options: dict[str, Any] = field(default_factory=dict)

    def start_secrets(self, listen: str) -> None:
        """Runs the secrets service until `secrets` is closed."""
        settings = SecretsSettings(
            data_dir=self.folder,
            database_url=migrated(f"sqlite:///{self.folder}/db/strongroom.db", "secrets"),
            identity_dir=self.folder / "keys",
            root_key_file=self.folder / "root.key",
            secrets_listen=listen,
            auth_addr="127.0.0.1:1",
        )
        self.secrets = ExitStack()
        self.secrets_address = self.secrets.enter_context(serving(secrets_bootstrap.build, settings))

    @contextmanager
    def secrets_down(self) -> Iterator[None]:
        """Stops the secrets service while the block runs."""
        self.secrets.close()
        try:
            yield
        finally:
            self.start_secrets(self.secrets_address)

    @contextmanager
    def models(self, bulk_socket: str = "") -> Iterator[str]:
        """Runs a models service, a replica of the others on these files; yields its address."""
        settings = ModelsSettings(
            data_dir=self.folder,
            database_url=migrated(self.database_url or f"sqlite:///{self.folder}/db/strongroom.db", "models"),
            identity_dir=self.folder / "keys",
            secrets_addr=self.secrets_address,
            stores=self.stores,
            sync_seconds=0.05,
            bulk_socket=bulk_socket,
            **{"auth_addr": "127.0.0.1:1", **self.options},
        )
        with serving(self.build, settings) as address:
            yield address

    def build(self, settings: ModelsSettings) -> Service:
        """The service, trusting the key that the test signs identity tokens with in auth's place."""
        service_keys = load_service_keys(self.folder / "keys")
        verifier = TokenVerifier("models", self.tokens.access_keys, service_keys, lambda _credential: False)
        return replace(bootstrap.build(settings, self.clock), verifier=verifier)

    def caller(self, who: Principal) -> Caller:
        return Caller(self.channel, self.tokens, who)

    @property
    def admin(self) -> Caller:
        return self.caller(ADMINISTRATOR)

    def stored(self, kind: str = "") -> list[Path]:
        """Files in the store: those of `packs`, `manifests`, `.tmp`, or all but the marks of whose index it is."""
        root = self.folder / "weights"
        files = (path for path in (root / kind).rglob("*") if path.is_file())
        return sorted(path for path in files if path.relative_to(root).parts[0] not in ("index", "checks"))


def make_installation_files(
    folder: Path, database_url: str = "", stores: Path | None = None, **options: Any
) -> Installation:
    """An installation with its keys, of which no service runs yet."""
    root_key = folder / "root.key"
    root_key.touch(mode=0o600)
    root_key.write_text(base64.b64encode(os.urandom(32)).decode())
    make_identities(folder / "keys")
    return Installation(folder, database_url=database_url, stores=stores, options=options)


@contextmanager
def installation(
    folder: Path, database_url: str = "", stores: Path | None = None, **options: Any
) -> Iterator[Installation]:
    with ExitStack() as stack:
        made = make_installation_files(folder, database_url, stores, **options)
        made.start_secrets("127.0.0.1:0")
        stack.callback(lambda: made.secrets.close())
        made.address = stack.enter_context(made.models())
        made.channel = stack.enter_context(
            grpc.insecure_channel(made.address, [("grpc.max_send_message_length", 64 << 20)])
        )
        yield made


@contextmanager
def refused(code: grpc.StatusCode, reason: str) -> Iterator[error_details_pb2.ErrorInfo]:
    """The block's call fails so; yields the ErrorInfo, filled when the block is left."""
    info = error_details_pb2.ErrorInfo()
    with pytest.raises(grpc.RpcError) as caught:
        yield info
    status = rpc_status.from_call(caught.value)
    assert status is not None, caught.value
    assert status.details[0].Unpack(info)
    assert (caught.value.code(), info.reason) == (code, reason), caught.value


def noise(seed: int, size: int) -> bytes:
    """The same random bytes each time."""
    return hashlib.shake_128(str(seed).encode()).digest(size)
