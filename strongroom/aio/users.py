"""Users and their roles."""
# Made from strongroom/client/users.py by `make clients`. Change it there.

from collections.abc import AsyncIterator, Sequence

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.auth.v1 import users_pb2 as pb
from strongroom.auth.v1 import users_pb2_grpc
from strongroom.client.users import NewUser
from strongroom.retries import Repeat


class Users:
    """People, who sign in with an e-mail address and a password."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = users_pb2_grpc.UserServiceStub(connection.channel)

    async def create(self, email: str, *, role: str, name: str = "", password: str = "") -> NewUser:
        """Creates a user. Without a password one is made up, to be changed at the first sign-in."""
        request = pb.CreateUserRequest(email=email, name=name, role=role, password=password)
        return NewUser.of(await self._connection.call(self._stub.CreateUser, request))

    async def list(self, *, active_only: bool = False) -> AsyncIterator[pb.User]:
        """The users, by e-mail address."""
        request = pb.ListUsersRequest(active_only=active_only)
        async for page in pages(self._connection, self._stub.ListUsers, request):
            for each in page.users:
                yield each

    async def roles(self) -> Sequence[pb.Role]:
        """The roles, and what each may do."""
        return (await self._connection.call(self._stub.ListRoles, pb.ListRolesRequest(), repeat=Repeat.SAFE)).roles

    async def get(self, user_id: str) -> pb.User:
        """One user."""
        return await self._connection.call(self._stub.GetUser, pb.GetUserRequest(id=user_id), repeat=Repeat.SAFE)

    async def update(
        self, user_id: str, *, name: str | None = None, role: str | None = None, is_active: bool | None = None
    ) -> pb.User:
        """Changes what is given and leaves the rest."""
        request = pb.UpdateUserRequest(id=user_id, name=name, role=role, is_active=is_active)
        return await self._connection.call(self._stub.UpdateUser, request)

    async def delete(self, user_id: str) -> pb.DeleteUserResponse:
        """Deletes a user, ends the sessions and revokes the keys."""
        return await self._connection.call(self._stub.DeleteUser, pb.DeleteUserRequest(id=user_id))

    async def reset_password(self, user_id: str) -> NewUser:
        """Gives the user a made-up password, to be changed at the next sign-in, and ends the sessions."""
        return NewUser.of(await self._connection.call(self._stub.ResetPassword, pb.ResetPasswordRequest(id=user_id)))

    async def sign_out(self, user_id: str) -> pb.SignOutUserResponse:
        """Ends all sessions of a user."""
        request = pb.SignOutUserRequest(id=user_id)
        return await self._connection.call(self._stub.SignOutUser, request, repeat=Repeat.SAFE)
