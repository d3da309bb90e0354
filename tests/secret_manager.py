"""A Google Cloud Secret Manager that the real client takes for one: Google's messages, everything in memory."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import grpc
from google.cloud import secretmanager_v1 as secretmanager
from google.protobuf import empty_pb2, timestamp_pb2

_SERVICE = "google.cloud.secretmanager.v1.SecretManagerService"
_LIMIT = 64 * 1024
_PAGE = 3
_Code = grpc.StatusCode
_State = secretmanager.SecretVersion.State


@dataclass
class _Kept:
    secret: Any
    versions: list[Any] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list, repr=False)


class SecretManager:
    """Its methods, by their names. `down` lets every call fail."""

    def __init__(self) -> None:
        self._secrets: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self.down = False

    def CreateSecret(self, request: Any, context: grpc.ServicerContext) -> Any:
        name = f"{request.parent}/secrets/{request.secret_id}"
        if name in self._secrets:
            context.abort(_Code.ALREADY_EXISTS, f"Secret [{name}] already exists.")
        if not secretmanager.Replication.pb(request.secret.replication).WhichOneof("replication"):
            context.abort(_Code.INVALID_ARGUMENT, "replication is required")
        made = secretmanager.Secret(name=name, replication=request.secret.replication, create_time=_now())
        self._secrets[name] = _Kept(made)
        return made

    def AddSecretVersion(self, request: Any, context: grpc.ServicerContext) -> Any:
        kept, data = self._kept(request.parent, context), request.payload.data
        if len(data) > _LIMIT or google_crc32c.value(data) != request.payload.data_crc32c:
            context.abort(_Code.INVALID_ARGUMENT, "too large, or another checksum")
        name = f"{request.parent}/versions/{len(kept.versions) + 1}"
        kept.versions.append(secretmanager.SecretVersion(name=name, state=_State.ENABLED, create_time=_now()))
        kept.payloads.append(data)
        return kept.versions[-1]

    def GetSecretVersion(self, request: Any, context: grpc.ServicerContext) -> Any:
        kept, number = self._version(request.name, context)
        return kept.versions[number]

    def AccessSecretVersion(self, request: Any, context: grpc.ServicerContext) -> Any:
        kept, number = self._version(request.name, context)
        if kept.versions[number].state != _State.ENABLED:
            context.abort(_Code.FAILED_PRECONDITION, "it is not enabled")
        data = kept.payloads[number]
        payload = secretmanager.SecretPayload(data=data, data_crc32c=google_crc32c.value(data))
        return secretmanager.AccessSecretVersionResponse(name=kept.versions[number].name, payload=payload)

    def ListSecretVersions(self, request: Any, context: grpc.ServicerContext) -> Any:
        kept = self._kept(request.parent, context)
        page, token = _page(list(reversed(kept.versions)), request.page_token)
        return secretmanager.ListSecretVersionsResponse(versions=page, next_page_token=token)

    def ListSecrets(self, request: Any, context: grpc.ServicerContext) -> Any:
        of_project = [kept.secret for name, kept in self._secrets.items() if name.startswith(f"{request.parent}/")]
        page, token = _page(of_project, request.page_token)
        return secretmanager.ListSecretsResponse(secrets=page, next_page_token=token)

    def DeleteSecret(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._kept(request.name, context)
        del self._secrets[request.name]
        return empty_pb2.Empty()

    def _kept(self, name: str, context: grpc.ServicerContext) -> _Kept:
        if name not in self._secrets:
            context.abort(_Code.NOT_FOUND, f"Secret [{name}] not found or has no versions.")
        return self._secrets[name]

    def _version(self, name: str, context: grpc.ServicerContext) -> tuple[_Kept, int]:
        secret, _, version = name.partition("/versions/")
        kept = self._kept(secret, context)
        number = len(kept.versions) if version == "latest" else int(version)
        if not 1 <= number <= len(kept.versions):
            context.abort(_Code.NOT_FOUND, f"Secret Version [{name}] not found.")
        return kept, number - 1

    def handler(self, method: str) -> grpc.RpcMethodHandler:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            if self.down:
                context.abort(_Code.UNAVAILABLE, "down")
            with self._lock:
                return getattr(self, method)(request, context)

        request_type = getattr(secretmanager, f"{method}Request")
        return grpc.unary_unary_rpc_method_handler(answer, request_type.deserialize, _serialized)


def _serialized(message: Any) -> bytes:
    if isinstance(message, empty_pb2.Empty):
        return message.SerializeToString()
    return type(message).serialize(message)


def _page(found: list[Any], token: str) -> tuple[list[Any], str]:
    begin = int(token or 0)
    return found[begin : begin + _PAGE], str(begin + _PAGE) if begin + _PAGE < len(found) else ""


def _now() -> timestamp_pb2.Timestamp:
    now = timestamp_pb2.Timestamp()
    now.GetCurrentTime()
    return now


@dataclass(frozen=True)
class SecretManagerServer:
    """`url`, and what answers there."""

    url: str
    manager: SecretManager


@contextmanager
def running() -> Iterator[SecretManagerServer]:
    """The server while the block runs."""
    manager = SecretManager()
    methods = [name for name in vars(SecretManager) if name[0].isupper()]
    server = grpc.server(ThreadPoolExecutor(8))
    handlers = {name: manager.handler(name) for name in methods}
    server.add_registered_method_handlers(_SERVICE, handlers)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield SecretManagerServer(f"http://127.0.0.1:{port}", manager)
    finally:
        server.stop(None).wait()
