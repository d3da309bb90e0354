"""UserService."""

import grpc

from services.auth.messages import grant_message
from services.auth.roles import ROLES
from services.auth.timestamps import timestamp
from services.auth.users import Changes, User, Users
from services.shared.call import caller
from strongroom.auth.v1 import users_pb2 as pb
from strongroom.auth.v1 import users_pb2_grpc


class UserServicer(users_pb2_grpc.UserServiceServicer):
    """Keeps the users."""

    def __init__(self, users: Users) -> None:
        self._users = users

    def CreateUser(self, request: pb.CreateUserRequest, context: grpc.ServicerContext) -> pb.User:
        user, made_up = self._users.create(caller(context), request.email, request.name, request.role, request.password)
        return _message(user, made_up)

    def ListUsers(self, request: pb.ListUsersRequest, _context: grpc.ServicerContext) -> pb.ListUsersResponse:
        users, next_page_token = self._users.page(
            request.page_size, request.page_token, active_only=request.active_only
        )
        return pb.ListUsersResponse(users=map(_message, users), next_page_token=next_page_token)

    def ListRoles(self, _request: pb.ListRolesRequest, _context: grpc.ServicerContext) -> pb.ListRolesResponse:
        roles = (
            pb.Role(name=role.name, description=role.description, grants=map(grant_message, role.grants))
            for role in ROLES.values()
        )
        return pb.ListRolesResponse(roles=roles)

    def GetUser(self, request: pb.GetUserRequest, _context: grpc.ServicerContext) -> pb.User:
        return _message(self._users.get(request.id))

    def UpdateUser(self, request: pb.UpdateUserRequest, context: grpc.ServicerContext) -> pb.User:
        changes = Changes(
            name=request.name if request.HasField("name") else None,
            role=request.role if request.HasField("role") else None,
            is_active=request.is_active if request.HasField("is_active") else None,
        )
        return _message(self._users.update(caller(context), request.id, changes))

    def DeleteUser(self, request: pb.DeleteUserRequest, context: grpc.ServicerContext) -> pb.DeleteUserResponse:
        return pb.DeleteUserResponse(revoked_keys=self._users.delete(caller(context), request.id))

    def ResetPassword(self, request: pb.ResetPasswordRequest, context: grpc.ServicerContext) -> pb.User:
        return _message(*self._users.reset_password(caller(context), request.id))

    def SignOutUser(self, request: pb.SignOutUserRequest, context: grpc.ServicerContext) -> pb.SignOutUserResponse:
        return pb.SignOutUserResponse(ended_sessions=self._users.sign_out(caller(context), request.id))


def _message(user: User, made_up: str = "") -> pb.User:
    return pb.User(
        id=user.id,
        email=user.email,
        name=user.name,
        role=user.role,
        is_active=user.is_active,
        must_change_password=user.must_change_password,
        created_at=timestamp(user.created_at),
        created_by=user.created_by,
        last_sign_in_at=timestamp(user.last_sign_in_at),
        password=made_up or None,
    )
