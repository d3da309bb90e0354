"""Where secrets are kept besides the embedded vault."""

import time
from collections.abc import Callable, Iterable, Iterator

from strongroom.client.paging import pages
from strongroom.connection import Connection
from strongroom.retries import Repeat
from strongroom.secrets.v1 import providers_pb2, providers_pb2_grpc

_LOOK_SECONDS = 0.5


def _silent(_providers: Iterable[providers_pb2.Provider]) -> None:
    return None


class Providers:
    """The providers of an installation: the embedded primary, replicas that follow it, others used by name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = providers_pb2_grpc.ProviderServiceStub(connection.channel)

    def show(self) -> list[providers_pb2.Provider]:
        """Every provider, the primary first: whether it answers, and how far it is behind."""
        request = providers_pb2.ListProvidersRequest()
        return list(self._connection.call(self._stub.ListProviders, request, repeat=Repeat.SAFE).providers)

    def sync(self, *providers: str, compare_only: bool = False) -> providers_pb2.SyncProvidersResponse:
        """Has these replicas compared with the primary, all if none is named, and made the same unless `compare_only`.

        Returns before that is done.
        """
        request = providers_pb2.SyncProvidersRequest(providers=providers, compare_only=compare_only)
        return self._connection.call(self._stub.SyncProviders, request, repeat=Repeat.SAFE)

    def wait(
        self, *providers: str, report: Callable[[Iterable[providers_pb2.Provider]], None] = _silent
    ) -> list[providers_pb2.Provider]:
        """Waits until these replicas, all if none is named, are compared and have seen every change.

        Those that do not answer are not waited for, nor those whose last change failed.
        """
        while True:
            shown = [one for one in self.show() if one.role == "replica" and (not providers or one.name in providers)]
            report(shown)
            if not any(one.healthy and not one.error and (one.comparing or one.pending_secrets) for one in shown):
                return shown
            time.sleep(_LOOK_SECONDS)

    def drift(self, *providers: str) -> Iterator[providers_pb2.Drift]:
        """Where replicas, all if none is named, differed from the primary when they were last compared."""
        request = providers_pb2.ListDriftRequest(providers=providers)
        for page in pages(self._connection, self._stub.ListDrift, request):
            yield from page.drift
