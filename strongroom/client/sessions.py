"""Signing in and out, as a person."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from strongroom import session
from strongroom.auth.v1 import sessions_pb2 as pb
from strongroom.auth.v1 import sessions_pb2_grpc
from strongroom.client.marks import blocking
from strongroom.connection import Connection
from strongroom.retries import Repeat
from strongroom.session import MemoryStore, Session, TokenStore


@dataclass(frozen=True)
class SignedIn:
    """Who signed in: `user:` and an id, and the role of the moment."""

    principal: str
    role: str


@blocking
class Sessions:
    """The caller's sessions.

    Args:
        store: where tokens are kept. If it is given, the client acts as whoever is signed in there.
    """

    def __init__(self, connection: Connection, store: TokenStore | None = None) -> None:
        self._connection = connection
        self._stub = sessions_pb2_grpc.SessionServiceStub(connection.channel)
        self._store = store or MemoryStore()
        if store is not None:
            self._act()

    def sign_in(self, email: str, password: str, *, new_password: str = "") -> SignedIn:
        """Signs in. From then on every call of this client is the user's, and its access token renews itself.

        With `new_password` the password is changed at the same time. Raises Unauthenticated if address or password are
        wrong, FailedPrecondition with reason PASSWORD_EXPIRED if the password must be changed, RateLimited after too
        many attempts.
        """
        request = pb.SignInRequest(email=email, password=password, new_password=new_password)
        # Who mistypes a password wants to hear of it, not to wait.
        answer = self._connection.call(self._stub.SignIn, request, repeat=Repeat.NEVER, anonymous=True)
        with self._store.exclusive():
            self._store.save(_tokens(answer))
        self._act()
        return SignedIn(answer.principal, answer.role)

    def sign_out(self) -> None:
        """Ends this session. Does nothing if nobody is signed in."""
        with self._store.exclusive():
            tokens = self._store.load()
            if tokens is not None:
                request = pb.SignOutRequest(refresh_token=tokens.refresh_token)
                self._connection.call(self._stub.SignOut, request, repeat=Repeat.SAFE, anonymous=True)
                self._store.save(None)
        self._connection.act_as(None)

    def sign_out_everywhere(self) -> int:
        """Ends all of the caller's sessions, this one among them. Returns how many."""
        ended = self._connection.call(self._stub.EndSessions, pb.EndSessionsRequest())
        with self._store.exclusive():
            self._store.save(None)
        self._connection.act_as(None)
        return ended.ended_sessions

    def list(self) -> Sequence[pb.Session]:
        """The caller's sessions, the latest first."""
        return self._connection.call(self._stub.ListSessions, pb.ListSessionsRequest(), repeat=Repeat.SAFE).sessions

    def end(self, session_id: str) -> None:
        """Ends one of the caller's sessions. Raises NotFound."""
        self._connection.call(self._stub.EndSession, pb.EndSessionRequest(id=session_id))

    def change_password(self, current: str, new: str) -> None:
        """Changes the caller's password and ends its other sessions."""
        request = pb.ChangePasswordRequest(current_password=current, new_password=new)
        self._connection.call(self._stub.ChangePassword, request, repeat=Repeat.NEVER)

    def _act(self) -> None:
        self._connection.act_as(Session(self._store, self._refresh))

    def _refresh(self, refresh_token: str) -> session.Tokens:
        """Not repeated if its answer is lost: a refresh token that is shown twice ends the session."""
        request = pb.RefreshSessionRequest(refresh_token=refresh_token)
        return _tokens(self._connection.call(self._stub.RefreshSession, request, anonymous=True))


def _tokens(answer: pb.SignInResponse | pb.RefreshSessionResponse) -> session.Tokens:
    return session.Tokens.issued(
        answer.access_token,
        answer.refresh_token,
        answer.expires_in,
        answer.refresh_expires_in,
        answer.principal,
        time.time(),
    )
