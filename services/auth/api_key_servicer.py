"""ApiKeyService."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal, cast

import grpc

from services.auth import rights
from services.auth.api_keys import ApiKeys
from services.auth.key_ages import KeyAge, KeyAges
from services.auth.key_record import ApiKey, Changes, NewApiKey
from services.auth.key_versions import KeyVersion
from services.auth.messages import grant, grant_message
from services.auth.permission_sets import PERMISSION_SETS
from services.auth.rights import Rights
from services.auth.timestamps import Clock, timestamp
from services.shared.call import caller
from services.shared.identity import Quota
from strongroom.auth.v1 import api_keys_pb2 as pb
from strongroom.auth.v1 import api_keys_pb2_grpc

_DEFAULT_GRACE = timedelta(days=1)


class ApiKeyServicer(api_keys_pb2_grpc.ApiKeyServiceServicer):
    """Creates, changes, lists, rotates and revokes API keys."""

    def __init__(self, api_keys: ApiKeys, ages: KeyAges, clock: Clock) -> None:
        self._api_keys = api_keys
        self._ages = ages
        self._clock = clock

    def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: grpc.ServicerContext) -> pb.ApiKey:
        return self._message(*self._api_keys.create(caller(context), _wish(request)))

    def ListApiKeys(self, request: pb.ListApiKeysRequest, context: grpc.ServicerContext) -> pb.ListApiKeysResponse:
        keys, next_page_token = self._api_keys.page(
            caller(context),
            request.page_size,
            request.page_token,
            active_only=request.active_only,
            owner=request.owner,
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

    def ReportKeyAges(
        self, request: pb.ReportKeyAgesRequest, _context: grpc.ServicerContext
    ) -> pb.ReportKeyAgesResponse:
        report = self._ages.report(request.max_age_days, request.page_size, request.page_token)
        return pb.ReportKeyAgesResponse(
            keys=map(_age, report.keys),
            max_age_days=report.max_age_days,
            overdue=report.overdue,
            total=report.total,
            next_page_token=report.next_page_token,
        )

    def GetApiKey(self, request: pb.GetApiKeyRequest, context: grpc.ServicerContext) -> pb.ApiKey:
        return self._message(self._api_keys.show(caller(context), request.id))

    def UpdateApiKey(self, request: pb.UpdateApiKeyRequest, context: grpc.ServicerContext) -> pb.ApiKey:
        return self._message(self._api_keys.update(caller(context), request.id, _changes(request)))

    def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: grpc.ServicerContext) -> pb.ApiKey:
        return self._message(self._api_keys.revoke(caller(context), request.id, cascade=request.cascade))

    def ExtendApiKey(self, request: pb.ExtendApiKeyRequest, context: grpc.ServicerContext) -> pb.ApiKey:
        return self._message(self._api_keys.extend(caller(context), request.id, timedelta(days=request.days)))

    def RotateApiKey(self, request: pb.RotateApiKeyRequest, context: grpc.ServicerContext) -> pb.ApiKey:
        given = request.HasField("grace_seconds")
        grace = timedelta(seconds=request.grace_seconds) if given else _DEFAULT_GRACE
        return self._message(*self._api_keys.rotate(caller(context), request.id, grace))

    def _message(self, key: ApiKey, secret: str | None = None) -> pb.ApiKey:
        now = self._clock()
        return pb.ApiKey(
            id=key.id,
            name=key.name,
            description=key.description,
            key_prefix=key.prefix,
            permission_set=key.rights.permission_set,
            permissions=key.rights.permissions,
            scopes=key.rights.scopes,
            created_by=key.created_by,
            created_at=timestamp(key.created_at),
            expires_at=timestamp(key.expires_at),
            revoked_at=timestamp(key.revoked_at),
            last_used_at=timestamp(key.last_used_at),
            usage_count=key.usage_count,
            is_active=key.active(now),
            key=secret,
            owner=key.owner,
            grants=map(grant_message, key.rights.grants),
            quotas=(pb.Quota(usage_class=q.usage_class, requests=q.requests, per=q.per) for q in key.quotas),
            version=key.version,
            versions=(_version(version, key, now) for version in key.versions),
        )


def _version(version: KeyVersion, key: ApiKey, now: datetime) -> pb.ApiKeyVersion:
    return pb.ApiKeyVersion(
        version=version.number,
        key_prefix=version.prefix,
        created_at=timestamp(version.created_at),
        expires_at=timestamp(version.expires_at),
        last_used_at=timestamp(version.last_used_at),
        is_active=key.active(now) and version.active(now),
    )


def _age(age: KeyAge) -> pb.KeyAge:
    return pb.KeyAge(
        id=age.id,
        name=age.name,
        key_prefix=age.prefix,
        owner=age.owner,
        age_days=age.age_days,
        status=age.status,
        rotated_at=timestamp(age.rotated_at),
        last_used_at=timestamp(age.last_used_at),
    )


def _wish(request: pb.CreateApiKeyRequest) -> NewApiKey:
    return NewApiKey(
        name=request.name,
        rights=_rights(request),
        description=request.description,
        owner=request.owner,
        quotas=_quotas(request.quotas),
        expires_in=timedelta(days=request.expires_in_days) if request.HasField("expires_in_days") else None,
    )


def _changes(request: pb.UpdateApiKeyRequest) -> Changes:
    replaced = bool(request.permission_set or request.permissions or request.grants)
    return Changes(
        name=request.name if request.HasField("name") else None,
        description=request.description if request.HasField("description") else None,
        rights=_rights(request) if replaced else None,
        scopes=tuple(request.scopes),
        quotas=_quotas(request.quotas),
        clear_quotas=request.clear_quotas,
    )


def _rights(request: pb.CreateApiKeyRequest | pb.UpdateApiKeyRequest) -> Rights:
    grants = tuple(map(grant, request.grants))
    return rights.resolve(request.permission_set, tuple(request.permissions), tuple(request.scopes), grants)


def _quotas(messages: Iterable[pb.Quota]) -> tuple[Quota, ...]:
    # Validation has looked at the period.
    return tuple(
        Quota(message.usage_class, message.requests, cast("Literal['minute', 'hour', 'day']", message.per))
        for message in messages
    )
