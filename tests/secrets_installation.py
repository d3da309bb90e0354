"""Secrets services, and calls to them as the gateway and as the other services make them."""

import base64
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pydantic import SecretStr

from services.secrets.bootstrap import build
from services.secrets.settings import SecretsSettings
from services.shared.channels import service_channel
from services.shared.identity import Principal
from services.shared.service import Service
from services.shared.tokens import ServiceIdentity, TokenVerifier, load_service_keys
from strongroom.secrets.v1 import keys_pb2, keys_pb2_grpc, secrets_pb2, secrets_pb2_grpc
from tests.migrated import migrated
from tests.serving import ADMINISTRATOR, TokenMaker, make_identities, make_token_maker, serving

# Stored as a secret, and then looked for where it must not be.
PLANTED = "correct-horse-battery-staple-4711"

Refusal = tuple[grpc.StatusCode, str]


class Client:
    """Calls the service as the gateway does, with an identity token."""

    def __init__(self, address: str, tokens: TokenMaker) -> None:
        self.stub = secrets_pb2_grpc.SecretServiceStub(grpc.insecure_channel(address))
        self.tokens = tokens

    def __call__(self, method: str, principal: Principal = ADMINISTRATOR, **fields: Any) -> Any:
        if isinstance(fields.get("data"), dict):
            fields["data"] = json_format.ParseDict(fields["data"], struct_pb2.Struct())
        request = getattr(secrets_pb2, f"{method}Request")(**fields)
        return getattr(self.stub, method)(request, metadata=self.tokens.metadata("secrets", principal), timeout=10)

    def value(self, name: str, **fields: Any) -> dict[str, Any]:
        return json_format.MessageToDict(self("GetSecret", name=name, **fields).data)

    def outcome(self, method: str, **fields: Any) -> grpc.StatusCode:
        try:
            self(method, **fields)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK

    def names(self, principal: Principal = ADMINISTRATOR, **fields: Any) -> list[str]:
        return [secret.name for secret in self("ListSecrets", principal, **fields).secrets]

    def refusal(self, method: str, principal: Principal = ADMINISTRATOR, **fields: Any) -> Refusal:
        return refusal(lambda: self(method, principal, **fields))


class Caller:
    """A service that calls the key service."""

    def __init__(self, name: str, identity_dir: Path, address: str) -> None:
        identity = ServiceIdentity.load(name, identity_dir)
        self.stub = keys_pb2_grpc.KeyServiceStub(service_channel(address, "secrets", identity))

    def __call__(self, method: str, **fields: Any) -> Any:
        return getattr(self.stub, method)(getattr(keys_pb2, f"{method}Request")(**fields))

    def generate(self, kek_id: str, *contexts: str) -> list[keys_pb2.Key]:
        return list(self("GenerateKeys", kek_id=kek_id, contexts=contexts).keys)

    def unwrap(self, key_id: str, context: str) -> bytes:
        return self("UnwrapKeys", **reference(key_id, context)).keys[0].key

    def refusal(self, method: str, **fields: Any) -> Refusal:
        return refusal(lambda: self(method, **fields))


class Installation:
    """A folder with root key and identities, in which services can be started again and again."""

    def __init__(self, folder: Path, database_url: str | None = None) -> None:
        self.folder = folder
        self.database = folder / "db" / "strongroom-secrets.db"
        self.tokens = make_token_maker()
        self.identities = make_identities(folder / "keys")
        self.root_key = folder / "root.key"
        self.root_key.touch(mode=0o600)
        self.change_root_key()
        self.settings = SecretsSettings(
            data_dir=folder,
            database_url=SecretStr(database_url or f"sqlite:///{folder / 'db' / 'strongroom.db'}"),
            identity_dir=self.identities,
            root_key_file=self.root_key,
            secrets_listen="127.0.0.1:0",
        )

    def change_root_key(self) -> None:
        self.root_key.write_bytes(base64.b64encode(os.urandom(32)))

    def build(self, settings: SecretsSettings) -> Service:
        """The real service; only the key that signs its callers' tokens is the test's, in auth's place."""
        service_keys = load_service_keys(self.identities)
        verifier = TokenVerifier("secrets", self.tokens.access_keys, service_keys, lambda _credential: False)
        migrated(settings.database_url.get_secret_value(), "secrets")
        return replace(build(settings), verifier=verifier)

    def serving(self) -> AbstractContextManager[str]:
        return serving(self.build, self.settings)

    def client(self, address: str) -> Client:
        return Client(address, self.tokens)

    def caller(self, name: str, address: str) -> Caller:
        return Caller(name, self.identities, address)

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Works on the database behind the service's back; the rows of the last statement."""
        with closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            return [connection.execute(statement).fetchall() for statement in statements][-1]

    def files(self) -> Iterator[tuple[Path, bytes]]:
        """All files of the installation with their bytes."""
        return ((path, path.read_bytes()) for path in self.folder.rglob("*") if path.is_file())


def reference(key_id: str, context: str) -> dict[str, Any]:
    return {"keys": [keys_pb2.KeyReference(key_id=key_id, context=context)]}


def refusal(call: Callable[[], object]) -> Refusal:
    """Code and reason with which a call is refused; no word of a secret's value comes with them."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert PLANTED not in str(status)
    return caught.value.code(), info.reason
