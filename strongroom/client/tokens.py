"""Access tokens, and the keys that sign them."""

from collections.abc import Mapping, Sequence

from strongroom.auth.v1 import tokens_pb2 as pb
from strongroom.auth.v1 import tokens_pb2_grpc
from strongroom.client.marks import blocking
from strongroom.connection import Connection
from strongroom.retries import Repeat
from strongroom.session import AccessToken, Renewing


class Tokens:
    """Short-lived tokens."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = tokens_pb2_grpc.TokenServiceStub(connection.channel)

    def create(self) -> AccessToken:
        """Exchanges the caller's API key for an access token of ten minutes."""
        answer = self._connection.call(self._stub.CreateToken, pb.CreateTokenRequest(), repeat=Repeat.SAFE)
        return AccessToken(answer.access_token, answer.expires_in)

    @blocking
    def act_as_aws(self, region: str = "", *, server: str = "", endpoint: str = "") -> None:
        """From now on every call is that of this machine's AWS identity, and its token renews itself.

        The arguments are those of `strongroom.aws.signed_caller_identity`; the server is this client's address if it is
        not named. Raises ImportError without botocore.
        """
        from strongroom.aws import signed_caller_identity

        def sign_in() -> AccessToken:
            return self.sign_in_with_aws(**signed_caller_identity(server or self._connection.url, region, endpoint))

        token = Renewing(sign_in)
        token.access_token()  # what is wrong is told here, not at the next call
        self._connection.act_as(token)

    def sign_in_with_aws(self, url: str, headers: Mapping[str, str], body: str, *, method: str = "POST") -> AccessToken:
        """Exchanges a signed GetCallerIdentity request, by `strongroom.aws`, for an access token."""
        request = pb.SignInWithAwsRequest(method=method, url=url, headers=dict(headers), body=body)
        answer = self._connection.call(self._stub.SignInWithAws, request, anonymous=True)
        return AccessToken(answer.access_token, answer.expires_in)

    def caller(self) -> pb.GetCallerResponse:
        """Who the caller is and what it may do."""
        return self._connection.call(self._stub.GetCaller, pb.GetCallerRequest(), repeat=Repeat.SAFE)

    def key_set(self) -> Sequence[pb.JsonWebKey]:
        """The public keys that tokens are verified with."""
        return self._connection.call(self._stub.GetKeySet, pb.GetKeySetRequest(), repeat=Repeat.SAFE).keys

    def signing_keys(self) -> Sequence[pb.SigningKey]:
        """The keys that sign tokens, without their private parts, the newest first."""
        request = pb.ListSigningKeysRequest()
        return self._connection.call(self._stub.ListSigningKeys, request, repeat=Repeat.SAFE).signing_keys

    def rotate_signing_key(self) -> pb.SigningKey:
        """Makes a new signing key, which signs once every verifier has had the time to fetch it."""
        return self._connection.call(self._stub.RotateSigningKey, pb.RotateSigningKeyRequest()).signing_key
