"""Users and their roles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from strongroom.auth.v1 import users_pb2 as pb
from strongroom.auth.v1 import users_pb2_grpc
from strongroom.client.paging import pages
from strongroom.connection import Connection
from strongroom.retries import Repeat


@dataclass(frozen=True)
class NewUser:
    """A user with a made-up password, shown to nobody again; empty if the caller chose one. Not in the repr."""

    about: pb.User = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def of(cls, answer: pb.User) -> "NewUser":
        """Takes the password out of the answer that holds it."""
        password = answer.password
        answer.ClearField("password")
        return cls(answer, password)

    @property
    def id(self) -> str:
        return self.about.id

    @property
    def email(self) -> str:
        return self.about.email

    def __repr__(self) -> str:
        return f"NewUser(email={self.email!r}, id={self.id!r}, role={self.about.role!r})"


class Users:
    """People, who sign in with an e-mail address and a password."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = users_pb2_grpc.UserServiceStub(connection.channel)

    def create(self, email: str, *, role: str, name: str = "", password: str = "") -> NewUser:
        """Creates a user. Without a password one is made up, to be changed at the first sign-in."""
        request = pb.CreateUserRequest(email=email, name=name, role=role, password=password)
        return NewUser.of(self._connection.call(self._stub.CreateUser, request))

    def list(self, *, active_only: bool = False) -> Iterator[pb.User]:
        """The users, by e-mail address."""
        request = pb.ListUsersRequest(active_only=active_only)
        for page in pages(self._connection, self._stub.ListUsers, request):
            yield from page.users

    def roles(self) -> Sequence[pb.Role]:
        """The roles, and what each may do."""
        return self._connection.call(self._stub.ListRoles, pb.ListRolesRequest(), repeat=Repeat.SAFE).roles

    def get(self, user_id: str) -> pb.User:
        """One user."""
        return self._connection.call(self._stub.GetUser, pb.GetUserRequest(id=user_id), repeat=Repeat.SAFE)

    def update(
        self, user_id: str, *, name: str | None = None, role: str | None = None, is_active: bool | None = None
    ) -> pb.User:
        """Changes what is given and leaves the rest."""
        request = pb.UpdateUserRequest(id=user_id, name=name, role=role, is_active=is_active)
        return self._connection.call(self._stub.UpdateUser, request)

    def delete(self, user_id: str) -> pb.DeleteUserResponse:
        """Deletes a user, ends the sessions and revokes the keys."""
        return self._connection.call(self._stub.DeleteUser, pb.DeleteUserRequest(id=user_id))

    def reset_password(self, user_id: str) -> NewUser:
        """Gives the user a made-up password, to be changed at the next sign-in, and ends the sessions."""
        return NewUser.of(self._connection.call(self._stub.ResetPassword, pb.ResetPasswordRequest(id=user_id)))

    def sign_out(self, user_id: str) -> pb.SignOutUserResponse:
        """Ends all sessions of a user."""
        request = pb.SignOutUserRequest(id=user_id)
        return self._connection.call(self._stub.SignOutUser, request, repeat=Repeat.SAFE)
