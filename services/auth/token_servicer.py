"""TokenService."""

from datetime import timedelta

import grpc
from jwt.utils import base64url_encode

from services.auth.aws_requests import SignedRequest
from services.auth.aws_sign_in import AwsSignIn
from services.auth.credentials import Credentials
from services.auth.issuer import TokenIssuer
from services.auth.messages import grant_message
from services.auth.signing_keys import Published, SigningKey, SigningKeys
from services.auth.timestamps import Clock, moment, timestamp
from services.shared.call import acts_as, caller
from services.shared.errors import FailedPrecondition
from services.shared.tokens import ACCESS_SECONDS, ALGORITHM
from strongroom.auth.v1 import tokens_pb2 as pb
from strongroom.auth.v1 import tokens_pb2_grpc

_COORDINATE_BYTES = 32


class PublicUrlUnset(FailedPrecondition):
    reason = "PUBLIC_URL_UNSET"


class TokenServicer(tokens_pb2_grpc.TokenServiceServicer):
    """Issues access tokens and publishes what they are verified with."""

    def __init__(
        self,
        issuer: TokenIssuer,
        signing_keys: SigningKeys,
        credentials: Credentials,
        aws: AwsSignIn,
        public_url: str,
        clock: Clock,
    ) -> None:
        self._issuer = issuer
        self._signing_keys = signing_keys
        self._credentials = credentials
        self._aws = aws
        self._public_url = public_url
        self._clock = clock

    def CreateToken(self, _request: pb.CreateTokenRequest, context: grpc.ServicerContext) -> pb.CreateTokenResponse:
        token, seconds = self._issuer.exchange(caller(context))
        return pb.CreateTokenResponse(access_token=token, token_type="Bearer", expires_in=seconds)  # noqa: S106

    def GetKeySet(self, _request: pb.GetKeySetRequest, _context: grpc.ServicerContext) -> pb.GetKeySetResponse:
        return pb.GetKeySetResponse(keys=[_json_web_key(shown.key) for shown in self._signing_keys.published()])

    def GetDiscovery(self, _request: pb.GetDiscoveryRequest, _context: grpc.ServicerContext) -> pb.GetDiscoveryResponse:
        if not self._public_url:
            raise PublicUrlUnset("Nobody has said where callers reach this gateway: set STRONGROOM_PUBLIC_URL.")
        return pb.GetDiscoveryResponse(
            issuer=self._public_url,
            jwks_uri=f"{self._public_url}/.well-known/jwks.json",
            token_endpoint=f"{self._public_url}/api/v1/tokens",
            # There is no authorization endpoint; both lists must be there, and verifiers look at the next one.
            response_types_supported=["token"],
            subject_types_supported=["public"],
            id_token_signing_alg_values_supported=[ALGORITHM],
        )

    def SignInWithAws(
        self, request: pb.SignInWithAwsRequest, context: grpc.ServicerContext
    ) -> pb.SignInWithAwsResponse:
        signed = SignedRequest(request.method, request.url, dict(request.headers), request.body)
        done = self._aws.sign_in(signed)
        acts_as(context, done.principal)
        return pb.SignInWithAwsResponse(
            access_token=done.token,
            token_type="Bearer",  # noqa: S106
            expires_in=done.seconds,
            principal=done.principal.id,
        )

    def ListSigningKeys(
        self, _request: pb.ListSigningKeysRequest, _context: grpc.ServicerContext
    ) -> pb.ListSigningKeysResponse:
        return pb.ListSigningKeysResponse(signing_keys=map(_signing_key, self._signing_keys.published()))

    def RotateSigningKey(
        self, _request: pb.RotateSigningKeyRequest, _context: grpc.ServicerContext
    ) -> pb.RotateSigningKeyResponse:
        return pb.RotateSigningKeyResponse(signing_key=_signing_key(self._signing_keys.rotate()))

    def ListRevocations(
        self, request: pb.ListRevocationsRequest, _context: grpc.ServicerContext
    ) -> pb.ListRevocationsResponse:
        given = request.HasField("since")
        since = moment(request.since) if given else self._clock() - timedelta(seconds=ACCESS_SECONDS)
        return pb.ListRevocationsResponse(credential_ids=self._credentials.revoked_since(since))

    def GetCaller(self, _request: pb.GetCallerRequest, context: grpc.ServicerContext) -> pb.GetCallerResponse:
        who = caller(context)
        return pb.GetCallerResponse(
            principal=who.id,
            name=who.name,
            key_prefix=who.key_prefix,
            grants=map(grant_message, who.grants),
            role=who.role,
        )


def _signing_key(shown: Published) -> pb.SigningKey:
    return pb.SigningKey(
        kid=shown.key.kid,
        created_at=timestamp(shown.key.created_at),
        signs_from=timestamp(shown.key.signs_from),
        published_until=timestamp(shown.until),
        state=shown.state,
    )


def _json_web_key(key: SigningKey) -> pb.JsonWebKey:
    numbers = key.public.public_numbers()
    x, y = (base64url_encode(number.to_bytes(_COORDINATE_BYTES, "big")).decode() for number in (numbers.x, numbers.y))
    return pb.JsonWebKey(kty="EC", crv="P-256", kid=key.kid, use="sig", alg=ALGORITHM, x=x, y=y)
