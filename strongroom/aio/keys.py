"""API keys."""
# Made from strongroom/client/keys.py by `make clients`. Change it there.

from collections.abc import AsyncIterator, Sequence

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.auth.v1 import api_keys_pb2 as pb
from strongroom.auth.v1 import api_keys_pb2_grpc
from strongroom.auth.v1.tokens_pb2 import Grant
from strongroom.client.keys import NewKey
from strongroom.retries import Repeat


class Keys:
    """API keys: long-lived credentials for programs."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = api_keys_pb2_grpc.ApiKeyServiceStub(connection.channel)

    async def create(
        self,
        name: str,
        *,
        permission_set: str = "",
        permissions: Sequence[str] = (),
        grants: Sequence[Grant] = (),
        scopes: Sequence[str] = (),
        description: str = "",
        expires_in_days: int | None = None,
        quotas: Sequence[pb.Quota] = (),
        owner: str = "",
    ) -> NewKey:
        """Creates a key.

        Args:
            permission_set: a name from `sets`; or
            permissions: such as `models.read`; or
            grants: lines that allow or deny. Exactly one of the three.
            scopes: resource patterns, such as `managers/fraud/**`, that limit a set or permissions.
            expires_in_days: 1 to 3650; None: it does not expire.
            quotas: limits of use, at most one a class.
            owner: a principal such as `user:01J…`; the caller if empty.
        """
        request = pb.CreateApiKeyRequest(
            name=name,
            description=description,
            permission_set=permission_set,
            permissions=permissions,
            scopes=scopes,
            expires_in_days=expires_in_days,
            grants=grants,
            owner=owner,
            quotas=quotas,
        )
        return NewKey.of(await self._connection.call(self._stub.CreateApiKey, request))

    async def list(self, *, active_only: bool = False, owner: str = "") -> AsyncIterator[pb.ApiKey]:
        """The keys that the caller may read, newest first."""
        request = pb.ListApiKeysRequest(active_only=active_only, owner=owner)
        async for page in pages(self._connection, self._stub.ListApiKeys, request):
            for each in page.api_keys:
                yield each

    async def get(self, key_id: str) -> pb.ApiKey:
        """One key, without its secret."""
        return await self._connection.call(self._stub.GetApiKey, pb.GetApiKeyRequest(id=key_id), repeat=Repeat.SAFE)

    async def update(
        self,
        key_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        permission_set: str = "",
        permissions: Sequence[str] = (),
        grants: Sequence[Grant] = (),
        scopes: Sequence[str] = (),
        quotas: Sequence[pb.Quota] = (),
        clear_quotas: bool = False,
    ) -> pb.ApiKey:
        """Changes what is given and leaves the rest. A set, permissions or grants replace what the key may do."""
        request = pb.UpdateApiKeyRequest(
            id=key_id,
            name=name,
            description=description,
            permission_set=permission_set,
            permissions=permissions,
            scopes=scopes,
            grants=grants,
            quotas=quotas,
            clear_quotas=clear_quotas,
        )
        return await self._connection.call(self._stub.UpdateApiKey, request)

    async def revoke(self, key_id: str, *, cascade: bool = False) -> pb.ApiKey:
        """Revokes a key, with `cascade` also the keys made with it: it fails at the next request."""
        request = pb.RevokeApiKeyRequest(id=key_id, cascade=cascade)
        return await self._connection.call(self._stub.RevokeApiKey, request, repeat=Repeat.SAFE)

    async def extend(self, key_id: str, days: int) -> pb.ApiKey:
        """Lets a key live so many days longer: from its expiry, or from now if that has passed."""
        return await self._connection.call(self._stub.ExtendApiKey, pb.ExtendApiKeyRequest(id=key_id, days=days))

    async def rotate(self, key_id: str, *, grace_seconds: int | None = None) -> NewKey:
        """Gives the key a new secret. The one before works on for the grace period, a day if None."""
        request = pb.RotateApiKeyRequest(id=key_id, grace_seconds=grace_seconds)
        return NewKey.of(await self._connection.call(self._stub.RotateApiKey, request))

    async def sets(self) -> Sequence[pb.PermissionSet]:
        """The permission sets a key can be created with."""
        request = pb.ListPermissionSetsRequest()
        return (await self._connection.call(self._stub.ListPermissionSets, request, repeat=Repeat.SAFE)).permission_sets

    async def ages(self, *, max_age_days: int = 0) -> pb.ReportKeyAgesResponse:
        """How old the secrets of all active keys are, the oldest first, judged by a policy (0: 90 days)."""
        request = pb.ReportKeyAgesRequest(max_age_days=max_age_days)
        report = pb.ReportKeyAgesResponse()
        async for page in pages(self._connection, self._stub.ReportKeyAges, request):
            report.keys.extend(page.keys)
            report.max_age_days, report.overdue, report.total = page.max_age_days, page.overdue, page.total
        return report
