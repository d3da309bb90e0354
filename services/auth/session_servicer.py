"""SessionService."""

from typing import Any
from urllib.parse import unquote

import grpc

from services.auth.sessions import KIND, RefreshTokenReused, Session, Sessions
from services.auth.sign_in import SignIn, Tokens
from services.auth.timestamps import timestamp
from services.auth.users import KIND as USER
from services.shared.call import acts_as, caller, client_address
from services.shared.identity import Principal
from strongroom.auth.v1 import sessions_pb2 as pb
from strongroom.auth.v1 import sessions_pb2_grpc

_BEARER = "Bearer"


class SessionServicer(sessions_pb2_grpc.SessionServiceServicer):
    """Signs users in and out."""

    def __init__(self, sign_in: SignIn, sessions: Sessions) -> None:
        self._sign_in = sign_in
        self._sessions = sessions

    def SignIn(self, request: pb.SignInRequest, context: grpc.ServicerContext) -> pb.SignInResponse:
        tokens = self._sign_in.sign_in(request.email, request.password, request.new_password, _address(context))
        return pb.SignInResponse(**_fields(tokens))

    def RefreshSession(
        self, request: pb.RefreshSessionRequest, context: grpc.ServicerContext
    ) -> pb.RefreshSessionResponse:
        try:
            return pb.RefreshSessionResponse(**_fields(self._sign_in.refresh(request.refresh_token)))
        except RefreshTokenReused as reuse:
            acts_as(context, Principal(f"{USER}:{reuse.user_id}"))
            raise

    def SignOut(self, request: pb.SignOutRequest, context: grpc.ServicerContext) -> pb.SignOutResponse:
        if user_id := self._sessions.end_by_token(request.refresh_token):
            acts_as(context, Principal(f"{USER}:{user_id}"))
        return pb.SignOutResponse()

    def ListSessions(self, _request: pb.ListSessionsRequest, context: grpc.ServicerContext) -> pb.ListSessionsResponse:
        who = caller(context)
        return pb.ListSessionsResponse(
            sessions=(_message(session, who) for session in self._sessions.of_user(_user_id(who)))
        )

    def EndSessions(self, _request: pb.EndSessionsRequest, context: grpc.ServicerContext) -> pb.EndSessionsResponse:
        return pb.EndSessionsResponse(ended_sessions=self._sessions.end(_user_id(caller(context))))

    def EndSession(self, request: pb.EndSessionRequest, context: grpc.ServicerContext) -> pb.EndSessionResponse:
        self._sessions.end(_user_id(caller(context)), request.id)
        return pb.EndSessionResponse()

    def ChangePassword(
        self, request: pb.ChangePasswordRequest, context: grpc.ServicerContext
    ) -> pb.ChangePasswordResponse:
        self._sign_in.change_password(caller(context), request.current_password, request.new_password)
        return pb.ChangePasswordResponse()


def _address(context: grpc.ServicerContext) -> str:
    """Where the request comes from, as Envoy saw it; without Envoy that is our peer, `ipv4:127.0.0.1:40000`."""
    return client_address(context) or unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")[:64]


def _user_id(who: Principal) -> str:
    """The user's id; of others, who have no sessions, an id that nobody has."""
    kind, _, user_id = who.id.partition(":")
    return user_id if kind == USER else ""


def _fields(tokens: Tokens) -> dict[str, Any]:
    """The fields that both answers have."""
    return {
        "access_token": tokens.access_token,
        "token_type": _BEARER,
        "expires_in": tokens.expires_in,
        "refresh_token": tokens.refresh_token,
        "refresh_expires_in": tokens.refresh_expires_in,
        "principal": tokens.principal.id,
        "role": tokens.principal.role,
    }


def _message(session: Session, who: Principal) -> pb.Session:
    return pb.Session(
        id=session.id,
        created_at=timestamp(session.created_at),
        refreshed_at=timestamp(session.refreshed_at),
        expires_at=timestamp(session.expires_at),
        address=session.address,
        is_current=who.credential_id == f"{KIND}:{session.id}",
    )
