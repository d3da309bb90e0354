"""Where secrets are kept besides the embedded vault."""
# Made from strongroom/client/providers.py by `make clients`. Change it there.

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.client.providers import _LOOK_SECONDS, _silent
from strongroom.client.secrets import struct_of, value_of
from strongroom.retries import Repeat
from strongroom.secrets.v1 import providers_pb2, providers_pb2_grpc, secrets_pb2, secrets_pb2_grpc


class Providers:
    """The providers of an installation: the embedded primary, replicas that follow it, others used by name."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = providers_pb2_grpc.ProviderServiceStub(connection.channel)

    def at(self, provider: str) -> "ProviderSecrets":
        """The secrets of one provider alone."""
        return ProviderSecrets(self._connection, provider)

    async def show(self) -> list[providers_pb2.Provider]:
        """Every provider, the primary first: whether it answers, and how far it is behind."""
        request = providers_pb2.ListProvidersRequest()
        return list((await self._connection.call(self._stub.ListProviders, request, repeat=Repeat.SAFE)).providers)

    async def sync(self, *providers: str, compare_only: bool = False) -> providers_pb2.SyncProvidersResponse:
        """Has these replicas compared with the primary, all if none is named, and made the same unless `compare_only`.

        Returns before that is done.
        """
        request = providers_pb2.SyncProvidersRequest(providers=providers, compare_only=compare_only)
        return await self._connection.call(self._stub.SyncProviders, request, repeat=Repeat.SAFE)

    async def wait(
        self, *providers: str, report: Callable[[Iterable[providers_pb2.Provider]], None] = _silent
    ) -> list[providers_pb2.Provider]:
        """Waits until these replicas, all if none is named, are compared and have seen every change.

        Those that do not answer are not waited for, nor those whose last change failed.
        """
        while True:
            shown = [
                one for one in await self.show() if one.role == "replica" and (not providers or one.name in providers)
            ]
            report(shown)
            if not any(one.healthy and not one.error and (one.comparing or one.pending_secrets) for one in shown):
                return shown
            await asyncio.sleep(_LOOK_SECONDS)

    async def drift(self, *providers: str) -> AsyncIterator[providers_pb2.Drift]:
        """Where replicas, all if none is named, differed from the primary when they were last compared."""
        request = providers_pb2.ListDriftRequest(providers=providers)
        async for page in pages(self._connection, self._stub.ListDrift, request):
            for each in page.drift:
                yield each


class ProviderSecrets:
    """The secrets of one provider alone: what is written here is written nowhere else.

    Its versions are known by their `revision`, which is a number only with some providers.
    """

    def __init__(self, connection: AsyncConnection, provider: str) -> None:
        self._connection = connection
        self._provider = provider
        self._stub = secrets_pb2_grpc.SecretServiceStub(connection.channel)

    async def create(self, name: str, data: Mapping[str, Any]) -> secrets_pb2.SecretVersion:
        """Writes the first version of a new secret. Raises AlreadyExists."""
        request = secrets_pb2.CreateSecretRequest(name=name, provider=self._provider, data=struct_of(data))
        return await self._connection.call(self._stub.CreateSecret, request)

    async def put(
        self,
        name: str,
        data: Mapping[str, Any],
        *,
        expected_version: int | None = None,
        expected_revision: str = "",
        allow_missing: bool = True,
    ) -> secrets_pb2.SecretVersion:
        """Writes a new version, of a new secret if there is none; unless `allow_missing`, that raises NotFound.

        With `expected_revision` only if that is the current one, with `expected_version=0` only if there is none
        (check-and-set): raises Conflict.
        """
        request = secrets_pb2.UpdateSecretRequest(
            name=name,
            provider=self._provider,
            data=struct_of(data),
            expected_version=expected_version,
            expected_revision=expected_revision,
            allow_missing=allow_missing,
        )
        return await self._connection.call(self._stub.UpdateSecret, request)

    async def get(self, name: str, version: int = 0, *, revision: str = "") -> secrets_pb2.GetSecretResponse:
        """Reads a version with its value, by number or by revision; the current one if neither is given."""
        request = secrets_pb2.GetSecretRequest(name=name, provider=self._provider, version=version, revision=revision)
        return await self._connection.call(self._stub.GetSecret, request, repeat=Repeat.SAFE)

    async def value(self, name: str, *, revision: str = "") -> dict[str, Any]:
        """The fields of a version as Python values, bytes as bytes: what was given to `put`."""
        return value_of(await self.get(name, revision=revision))

    async def list(self, prefix: str = "") -> AsyncIterator[secrets_pb2.SecretSummary]:
        """The names of the secrets that the caller may list, in order."""
        request = secrets_pb2.ListSecretsRequest(prefix=prefix, provider=self._provider, page_size=1000)
        async for page in pages(self._connection, self._stub.ListSecrets, request):
            for each in page.secrets:
                yield each

    async def history(self, name: str) -> Sequence[secrets_pb2.SecretVersion]:
        """The versions of a secret, newest first, without values."""
        request = secrets_pb2.ListSecretVersionsRequest(name=name, provider=self._provider)
        return (await self._connection.call(self._stub.ListSecretVersions, request, repeat=Repeat.SAFE)).versions

    async def delete(self, name: str) -> secrets_pb2.DeleteSecretResponse:
        """Deletes a secret with all of its versions, for good as far as the provider goes."""
        request = secrets_pb2.DeleteSecretRequest(name=name, provider=self._provider)
        return await self._connection.call(self._stub.DeleteSecret, request)
