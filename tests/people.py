"""Users of an auth service, who sign in from somewhere and call it with what they got."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from strongroom.auth.v1 import sessions_pb2 as sessions_pb
from strongroom.auth.v1 import sessions_pb2_grpc, tokens_pb2_grpc, users_pb2_grpc
from strongroom.auth.v1 import tokens_pb2 as tokens_pb
from strongroom.auth.v1 import users_pb2 as users_pb
from tests.auth_installation import BOOTSTRAP_KEY, Auth

# Hashes in a millisecond, for tests alone.
CHEAP = {"password_memory_kib": 32, "password_passes": 1, "password_lanes": 1, "password_cheap": True}
PASSWORD = "lantern orbit velvet"

_STUBS: dict[str, Any] = {
    "UserService": users_pb2_grpc.UserServiceStub,
    "SessionService": sessions_pb2_grpc.SessionServiceStub,
    "TokenService": tokens_pb2_grpc.TokenServiceStub,
}
_numbers = count(1)


def fresh_email() -> str:
    """An address that no other test has."""
    return f"person{next(_numbers)}@example.com"


@dataclass(frozen=True)
class Person:
    """Someone with an account."""

    auth: Auth
    user: users_pb.User
    password: str = field(repr=False)

    @property
    def id(self) -> str:
        return str(self.user.id)

    def sign_in(
        self, address: str = "192.0.2.1", password: str = "", new_password: str = ""
    ) -> sessions_pb.SignInResponse:
        return sign_in(self.auth, self.user.email, password or self.password, address, new_password)


def sign_in(
    auth: Auth, email: str, password: str, address: str = "192.0.2.1", new_password: str = ""
) -> sessions_pb.SignInResponse:
    """Signs in as the gateway passes it on: the last address is the one that Envoy saw."""
    request = sessions_pb.SignInRequest(email=email, password=password, new_password=new_password)
    metadata = [("x-forwarded-for", f"203.0.113.99, {address}")]
    answer = sessions_pb2_grpc.SessionServiceStub(auth.channel).SignIn(request, metadata=metadata)
    assert isinstance(answer, sessions_pb.SignInResponse)
    return answer


def refresh(auth: Auth, token: str) -> sessions_pb.RefreshSessionResponse:
    request = sessions_pb.RefreshSessionRequest(refresh_token=token)
    answer = sessions_pb2_grpc.SessionServiceStub(auth.channel).RefreshSession(request)
    assert isinstance(answer, sessions_pb.RefreshSessionResponse)
    return answer


def ask(auth: Auth, access_token: str, service: str, method: str, request: Any) -> Any:
    """Calls a method with a user's access token."""
    stub = _STUBS[service](auth.channel)
    return getattr(stub, method)(request, metadata=[("authorization", f"Bearer {access_token}")])


def administer(auth: Auth, method: str, request: Any, key: str = BOOTSTRAP_KEY) -> Any:
    """Calls a method of UserService with an API key."""
    metadata = auth.identity(key, f"/strongroom.auth.v1.UserService/{method}")
    return getattr(users_pb2_grpc.UserServiceStub(auth.channel), method)(request, metadata=metadata)


def person(auth: Auth, role: str = "viewer", password: str = PASSWORD, email: str = "") -> Person:
    """A new user."""
    request = users_pb.CreateUserRequest(email=email or fresh_email(), name="Ada", role=role, password=password)
    made = administer(auth, "CreateUser", request)
    return Person(auth, made, password or made.password)


def whoami(auth: Auth, access_token: str) -> tokens_pb.GetCallerResponse:
    answer = ask(auth, access_token, "TokenService", "GetCaller", tokens_pb.GetCallerRequest())
    assert isinstance(answer, tokens_pb.GetCallerResponse)
    return answer


def works(auth: Auth, access_token: str) -> bool:
    """Whether the token is accepted at this moment."""
    try:
        whoami(auth, access_token)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return False
        raise
    return True


def retry_seconds(error: grpc.RpcError) -> int | None:
    """The seconds of the RetryInfo of a failed call; None without one."""
    status, retry = rpc_status.from_call(error), error_details_pb2.RetryInfo()
    assert status is not None
    return retry.retry_delay.seconds if any(detail.Unpack(retry) for detail in status.details) else None
