"""Auth services over a real secrets service, and calls to them as the gateway makes them: the check, then the call."""

import base64
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.auth import bootstrap
from services.auth.settings import AuthSettings
from services.secrets import bootstrap as secrets_bootstrap
from services.secrets.settings import SecretsSettings
from services.shared.channels import IDENTITY_HEADER, service_channel
from services.shared.tokens import ServiceIdentity
from strongroom.auth.v1 import api_keys_pb2 as keys_pb
from strongroom.auth.v1 import api_keys_pb2_grpc, info_pb2_grpc, tokens_pb2, tokens_pb2_grpc
from strongroom.edge.v1 import external_auth_pb2 as edge
from tests.migrated import migrated
from tests.serving import make_identities, serving

BOOTSTRAP_KEY = "bootstrap key for tests, 0123456789"
LIST_MODELS = "/strongroom.models.v1.ModelService/ListModels"


@dataclass
class TestClock:
    """A clock that a test moves on."""

    __test__ = False
    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Auth:
    """A running auth service and the edge in front of it."""

    address: str
    channel: grpc.Channel
    database: Path

    @property
    def info(self) -> info_pb2_grpc.InfoServiceStub:
        return info_pb2_grpc.InfoServiceStub(self.channel)

    def check(
        self, method: str = LIST_MODELS, headers: dict[str, str] | None = None, path: str = "", address: str = ""
    ) -> edge.CheckResponse:
        """Asks as Envoy does: about a call over gRPC, or with `path` over REST."""
        http = edge.HttpRequest(method="POST", path=path or method, headers=headers or {})
        source = edge.Peer(address=edge.Address(socket_address=edge.SocketAddress(address=address)))
        attributes = edge.AttributeContext(source=source, request=edge.Request(http=http))
        attributes.context_extensions["method"] = method
        request = edge.CheckRequest(attributes=attributes)
        ask = self.channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            request_serializer=edge.CheckRequest.SerializeToString,
            response_deserializer=edge.CheckResponse.FromString,
        )
        return ask(request)

    def check_key(self, key: str, method: str = LIST_MODELS) -> edge.CheckResponse:
        return self.check(method, {"x-api-key": key})

    def identity(self, key: str, method: str) -> list[tuple[str, str]]:
        """The metadata that a call with this key carries beyond the gateway. Raises AssertionError if it gets a 401."""
        return self.identity_with({"x-api-key": key}, method)

    def identity_with(self, headers: dict[str, str], method: str) -> list[tuple[str, str]]:
        """The same for any credential, or for none."""
        answer = self.check(method, headers)
        assert answer.HasField("ok_response"), answer
        [header] = answer.ok_response.headers
        assert header.header.key == IDENTITY_HEADER
        return [(IDENTITY_HEADER, header.header.value)]

    def credential(self, key: str) -> str:
        """The id of the credential that the key is, as tokens made with it name it."""
        [(_, token)] = self.identity(key, LIST_MODELS)
        return str(jwt.decode(token, options={"verify_signature": False})["cred"])

    def call(self, key: str, service: str, method: str, request: Any) -> Any:
        """Calls a method of auth with an API key."""
        return self.call_with({"x-api-key": key}, service, method, request)

    def call_with(self, headers: dict[str, str], service: str, method: str, request: Any) -> Any:
        """Calls a method of auth with any credential, or with none."""
        stubs: dict[str, Any] = {
            "ApiKeyService": api_keys_pb2_grpc.ApiKeyServiceStub,
            "TokenService": tokens_pb2_grpc.TokenServiceStub,
        }
        metadata = self.identity_with(headers, f"/strongroom.auth.v1.{service}/{method}")
        return getattr(stubs[service](self.channel), method)(request, metadata=metadata)

    def accepts_token(self, token: str) -> bool:
        """Whether an access token still tells who calls."""
        metadata = [("authorization", f"Bearer {token}")]
        try:
            tokens_pb2_grpc.TokenServiceStub(self.channel).GetCaller(tokens_pb2.GetCallerRequest(), metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
            return False
        return True

    def revocations(self, installed: "Installation") -> list[str]:
        """What the services are told."""
        identity = ServiceIdentity.load("models", installed.folder / "keys")
        with service_channel(self.address, "auth", identity) as channel:
            stub = tokens_pb2_grpc.TokenServiceStub(channel)
            return list(stub.ListRevocations(tokens_pb2.ListRevocationsRequest()).credential_ids)

    def create(self, key: str = BOOTSTRAP_KEY, /, name: str = "test", **fields: Any) -> keys_pb.ApiKey:
        return self.call(key, "ApiKeyService", "CreateApiKey", keys_pb.CreateApiKeyRequest(name=name, **fields))

    def keys(self, method: str, key: str = BOOTSTRAP_KEY, **fields: Any) -> Any:
        """Calls a method of ApiKeyService, which has a request of its own name."""
        request = getattr(keys_pb, f"{method}Request")(**fields)
        return self.call(key, "ApiKeyService", method, request)

    def get(self, key_id: str) -> keys_pb.ApiKey:
        return self.call(BOOTSTRAP_KEY, "ApiKeyService", "GetApiKey", keys_pb.GetApiKeyRequest(id=key_id))

    def revoke(self, key_id: str) -> keys_pb.ApiKey:
        return self.call(BOOTSTRAP_KEY, "ApiKeyService", "RevokeApiKey", keys_pb.RevokeApiKeyRequest(id=key_id))

    def stored_bytes(self) -> bytes:
        """Whatever the database has on disk, its write-ahead log included."""
        return b"".join(file.read_bytes() for file in self.database.parent.glob(f"{self.database.stem}*"))


@dataclass
class Installation:
    """One secrets service and the folder of everything."""

    folder: Path
    secrets_address: str
    clock: TestClock = field(default_factory=TestClock)

    @contextmanager
    def auth(self, database: str = "auth", bootstrap_key: str = BOOTSTRAP_KEY, **settings: Any) -> Iterator[Auth]:
        """Runs an auth service, a replica of the others on that database, or of those at `database_url`."""
        url = settings.pop("database_url", f"sqlite:///{self.folder}/db/{database}.db")
        made = auth_settings(
            self.folder,
            database_url=migrated(url, "auth"),
            secrets_addr=self.secrets_address,
            bootstrap_api_key=bootstrap_key,
            **settings,
        )
        with (
            serving(lambda chosen: bootstrap.build(chosen, self.clock), made) as address,
            grpc.insecure_channel(address) as channel,
        ):
            yield Auth(address, channel, self.folder / "db" / f"{database}-auth.db")


@contextmanager
def installation(folder: Path) -> Iterator[Installation]:
    """Runs the secrets service that auth's keys are encrypted by."""
    root_key = folder / "root.key"
    root_key.touch(mode=0o600)
    root_key.write_text(base64.b64encode(os.urandom(32)).decode())
    settings = SecretsSettings(
        data_dir=folder,
        database_url=migrated(f"sqlite:///{folder}/db/strongroom.db", "secrets"),
        identity_dir=make_identities(folder / "keys"),
        root_key_file=root_key,
    )
    with ExitStack() as stack:
        yield Installation(folder, stack.enter_context(serving(secrets_bootstrap.build, settings)))


def auth_settings(folder: Path, **fields: Any) -> AuthSettings:
    """Settings of an auth service with the identities in the folder; unless asked for, it does not limit guessing."""
    return AuthSettings(data_dir=folder, identity_dir=folder / "keys", **{"rate_limit": "off"} | fields)


def reason_of(error: grpc.RpcError) -> str:
    """The reason in the ErrorInfo of a failed call."""
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason
