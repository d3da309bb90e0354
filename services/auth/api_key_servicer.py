"""ApiKeyService."""

from datetime import timedelta

import grpc

from services.auth.api_keys import ApiKey, ApiKeys, NewApiKey
from services.auth.permission_sets import PERMISSION_SETS
from services.auth.timestamps import Clock, timestamp
from services.shared.call import caller
from strongroom.auth.v1 import api_keys_pb2 as pb
from strongroom.auth.v1 import api_keys_pb2_grpc


class ApiKeyServicer(api_keys_pb2_grpc.ApiKeyServiceServicer):
    """Creates, lists and revokes API keys."""

    def __init__(self, api_keys: ApiKeys, clock: Clock) -> None:
        self._api_keys = api_keys
        self._clock = clock

    def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: grpc.ServicerContext) -> pb.ApiKey:
        key, text = self._api_keys.create(caller(context), _wish(request))
        message = self._message(key)
        message.key = text
        return message

    def ListApiKeys(self, request: pb.ListApiKeysRequest, context: grpc.ServicerContext) -> pb.ListApiKeysResponse:
        keys, next_page_token = self._api_keys.page(
            caller(context), request.page_size, request.page_token, active_only=request.active_only
        )
        return pb.ListApiKeysResponse(api_keys=map(self._message, keys), next_page_token=next_page_token)

    def ListPermissionSets(
        self, _request: pb.ListPermissionSetsRequest, _context: grpc.ServicerContext
    ) -> pb.ListPermissionSetsResponse:
        sets = (
            pb.PermissionSet(name=s.name, description=s.description, permissions=s.permissions)
            for s in PERMISSION_SETS.values()
        )
        return pb.ListPermissionSetsResponse(permission_sets=sets)

    def GetApiKey(self, request: pb.GetApiKeyRequest, _context: grpc.ServicerContext) -> pb.ApiKey:
        return self._message(self._api_keys.get(request.id))

    def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, _context: grpc.ServicerContext) -> pb.ApiKey:
        return self._message(self._api_keys.revoke(request.id))

    def _message(self, key: ApiKey) -> pb.ApiKey:
        return pb.ApiKey(
            id=key.id,
            name=key.name,
            description=key.description,
            key_prefix=key.prefix,
            permission_set=key.permission_set,
            permissions=key.permissions,
            scopes=key.scopes,
            created_by=key.created_by,
            created_at=timestamp(key.created_at),
            expires_at=timestamp(key.expires_at),
            revoked_at=timestamp(key.revoked_at),
            last_used_at=timestamp(key.last_used_at),
            usage_count=key.usage_count,
            is_active=key.active(self._clock()),
        )


def _wish(request: pb.CreateApiKeyRequest) -> NewApiKey:
    return NewApiKey(
        name=request.name,
        description=request.description,
        permission_set=request.permission_set,
        permissions=tuple(request.permissions),
        scopes=tuple(request.scopes),
        expires_in=timedelta(days=request.expires_in_days) if request.HasField("expires_in_days") else None,
    )
