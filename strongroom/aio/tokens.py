"""Access tokens, and the keys that sign them."""
# Made from strongroom/client/tokens.py by `make clients`. Change it there.

from collections.abc import Mapping, Sequence

from strongroom.aio.connection import AsyncConnection
from strongroom.auth.v1 import tokens_pb2 as pb
from strongroom.auth.v1 import tokens_pb2_grpc
from strongroom.client import tokens as blocking
from strongroom.retries import Repeat
from strongroom.session import AccessToken


class Tokens:
    """Short-lived tokens."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = tokens_pb2_grpc.TokenServiceStub(connection.channel)
        self._blocking = blocking.Tokens(connection.blocking)

    async def create(self) -> AccessToken:
        """Exchanges the caller's API key for an access token of ten minutes."""
        answer = await self._connection.call(self._stub.CreateToken, pb.CreateTokenRequest(), repeat=Repeat.SAFE)
        return AccessToken(answer.access_token, answer.expires_in)

    async def act_as_aws(self, region: str = "", *, server: str = "", endpoint: str = "") -> None:
        """From now on every call is that of this machine's AWS identity, and its token renews itself.

        The arguments are those of `strongroom.aws.signed_caller_identity`; the server is this client's address if it is
        not named. Raises ImportError without botocore.
        """
        return await self._connection.in_thread(
            lambda: self._blocking.act_as_aws(region, server=server, endpoint=endpoint)
        )

    async def sign_in_with_aws(
        self, url: str, headers: Mapping[str, str], body: str, *, method: str = "POST"
    ) -> AccessToken:
        """Exchanges a signed GetCallerIdentity request, by `strongroom.aws`, for an access token."""
        request = pb.SignInWithAwsRequest(method=method, url=url, headers=dict(headers), body=body)
        answer = await self._connection.call(self._stub.SignInWithAws, request, anonymous=True)
        return AccessToken(answer.access_token, answer.expires_in)

    async def caller(self) -> pb.GetCallerResponse:
        """Who the caller is and what it may do."""
        return await self._connection.call(self._stub.GetCaller, pb.GetCallerRequest(), repeat=Repeat.SAFE)

    async def key_set(self) -> Sequence[pb.JsonWebKey]:
        """The public keys that tokens are verified with."""
        return (await self._connection.call(self._stub.GetKeySet, pb.GetKeySetRequest(), repeat=Repeat.SAFE)).keys

    async def signing_keys(self) -> Sequence[pb.SigningKey]:
        """The keys that sign tokens, without their private parts, the newest first."""
        request = pb.ListSigningKeysRequest()
        return (await self._connection.call(self._stub.ListSigningKeys, request, repeat=Repeat.SAFE)).signing_keys

    async def rotate_signing_key(self) -> pb.SigningKey:
        """Makes a new signing key, which signs once every verifier has had the time to fetch it."""
        return (await self._connection.call(self._stub.RotateSigningKey, pb.RotateSigningKeyRequest())).signing_key
