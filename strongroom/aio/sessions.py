"""Signing in and out, as a person."""
# Made from strongroom/client/sessions.py by `make clients`. Change it there.

from collections.abc import Sequence

from strongroom.aio.connection import AsyncConnection
from strongroom.auth.v1 import sessions_pb2 as pb
from strongroom.client import sessions as blocking
from strongroom.client.sessions import SignedIn
from strongroom.session import TokenStore


class Sessions:
    """The caller's sessions.

    Args:
        store: where tokens are kept. If it is given, the client acts as whoever is signed in there.
    """

    def __init__(self, connection: AsyncConnection, store: TokenStore | None = None) -> None:
        self._connection = connection
        self._blocking = blocking.Sessions(connection.blocking, store)

    async def sign_in(self, email: str, password: str, *, new_password: str = "") -> SignedIn:
        """Signs in. From then on every call of this client is the user's, and its access token renews itself.

        With `new_password` the password is changed at the same time. Raises Unauthenticated if address or password are
        wrong, FailedPrecondition with reason PASSWORD_EXPIRED if the password must be changed, RateLimited after too
        many attempts.
        """
        return await self._connection.in_thread(
            lambda: self._blocking.sign_in(email, password, new_password=new_password)
        )

    async def sign_out(self) -> None:
        """Ends this session. Does nothing if nobody is signed in."""
        return await self._connection.in_thread(lambda: self._blocking.sign_out())

    async def sign_out_everywhere(self) -> int:
        """Ends all of the caller's sessions, this one among them. Returns how many."""
        return await self._connection.in_thread(lambda: self._blocking.sign_out_everywhere())

    async def list(self) -> Sequence[pb.Session]:
        """The caller's sessions, the latest first."""
        return await self._connection.in_thread(lambda: self._blocking.list())

    async def end(self, session_id: str) -> None:
        """Ends one of the caller's sessions. Raises NotFound."""
        return await self._connection.in_thread(lambda: self._blocking.end(session_id))

    async def change_password(self, current: str, new: str) -> None:
        """Changes the caller's password and ends its other sessions."""
        return await self._connection.in_thread(lambda: self._blocking.change_password(current, new))
