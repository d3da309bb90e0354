"""What tests of the catalog share: a model with versions, and callers who may do some things and not others."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from strongroom.auth.v1 import api_keys_pb2, api_keys_pb2_grpc
from strongroom.auth.v1.tokens_pb2 import Grant
from tests.callers import Caller, administrator
from tests.stack import Stack
from tests.uploads import Uploads


def fresh(name: str) -> str:
    """A name that no other test has."""
    return f"{name}-{secrets.token_hex(6)}"


@dataclass(frozen=True)
class Model:
    """A model of the default manager with tiny versions."""

    stack: Stack
    name: str

    @property
    def path(self) -> str:
        return f"/api/v1/managers/default/models/{self.name}"

    @property
    def names(self) -> dict[str, str]:
        """The fields of a request that name it."""
        return {"manager_id": "default", "model_name": self.name}


def model(stack: Stack, *versions: str) -> Model:
    made = Model(stack, fresh("catalog"))
    with grpc.insecure_channel(stack.target) as channel:
        uploads = Uploads(channel, stack.admin_key)
        for version in versions or ("v1", "v2"):
            uploads.push(made.name, version, {"weights.bin": f"{made.name} {version}".encode()})
    return made


def caller(stack: Stack, *grants: tuple[str, Sequence[str], Sequence[str]]) -> Caller:
    """Somebody whose key has these grants: effect, permissions, resources."""
    request = api_keys_pb2.CreateApiKeyRequest(name=fresh("key"))
    for effect, permissions, resources in grants:
        request.grants.append(Grant(effect=effect, permissions=permissions, resources=resources))
    made = administrator(stack).grpc(api_keys_pb2_grpc.ApiKeyServiceStub, "CreateApiKey", request)
    return Caller(stack, made.key)
