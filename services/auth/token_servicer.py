"""TokenService."""

from datetime import timedelta

import grpc
from jwt.utils import base64url_encode

from services.auth.credentials import Credentials
from services.auth.issuer import TokenIssuer
from services.auth.messages import grant_message
from services.auth.signing_keys import SigningKey, SigningKeys
from services.auth.timestamps import Clock, moment
from services.shared.call import caller
from services.shared.tokens import ACCESS_SECONDS, ALGORITHM
from strongroom.auth.v1 import tokens_pb2 as pb
from strongroom.auth.v1 import tokens_pb2_grpc

_COORDINATE_BYTES = 32


class TokenServicer(tokens_pb2_grpc.TokenServiceServicer):
    """Issues access tokens and publishes what they are verified with."""

    def __init__(self, issuer: TokenIssuer, signing_keys: SigningKeys, credentials: Credentials, clock: Clock) -> None:
        self._issuer = issuer
        self._signing_keys = signing_keys
        self._credentials = credentials
        self._clock = clock

    def CreateToken(self, _request: pb.CreateTokenRequest, context: grpc.ServicerContext) -> pb.CreateTokenResponse:
        token, seconds = self._issuer.exchange(caller(context))
        return pb.CreateTokenResponse(access_token=token, token_type="Bearer", expires_in=seconds)  # noqa: S106

    def GetKeySet(self, _request: pb.GetKeySetRequest, _context: grpc.ServicerContext) -> pb.GetKeySetResponse:
        return pb.GetKeySetResponse(keys=map(_json_web_key, self._signing_keys.published()))

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


def _json_web_key(key: SigningKey) -> pb.JsonWebKey:
    numbers = key.public.public_numbers()
    x, y = (base64url_encode(number.to_bytes(_COORDINATE_BYTES, "big")).decode() for number in (numbers.x, numbers.y))
    return pb.JsonWebKey(kty="EC", crv="P-256", kid=key.kid, use="sig", alg=ALGORITHM, x=x, y=y)
