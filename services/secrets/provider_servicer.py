"""ProviderService."""

import base64
import binascii

import grpc

from services.secrets.providers.composition import Providers, ProviderView
from services.secrets.providers.states import Drift
from services.secrets.secret_messages import timestamp
from services.shared.call import caller
from services.shared.errors import PageTokenInvalid
from strongroom.secrets.v1 import providers_pb2 as pb
from strongroom.secrets.v1 import providers_pb2_grpc

_PAGE_SIZE = 100


class ProviderServicer(providers_pb2_grpc.ProviderServiceServicer):
    """Shows the providers, and has replicas compared and repaired."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers

    def ListProviders(
        self, request: pb.ListProvidersRequest, context: grpc.ServicerContext
    ) -> pb.ListProvidersResponse:
        return pb.ListProvidersResponse(providers=map(_provider, self._providers.all()))

    def SyncProviders(
        self, request: pb.SyncProvidersRequest, context: grpc.ServicerContext
    ) -> pb.SyncProvidersResponse:
        views = self._providers.request_comparison(list(request.providers), repair=not request.compare_only)
        return pb.SyncProvidersResponse(providers=map(_provider, views))

    def ListDrift(self, request: pb.ListDriftRequest, context: grpc.ServicerContext) -> pb.ListDriftResponse:
        principal, size = caller(context), request.page_size or _PAGE_SIZE
        found = self._providers.drift(
            list(request.providers),
            visible=lambda name: principal.allows("secrets.list", f"secrets/{name}"),
            after=_after(request.page_token),
            limit=size + 1,
        )
        token = _token(found[size - 1]) if len(found) > size else ""
        return pb.ListDriftResponse(drift=map(_drift, found[:size]), next_page_token=token)


def _provider(view: ProviderView) -> pb.Provider:
    state = view.state
    return pb.Provider(
        name=view.name,
        kind=view.kind,
        role=view.role,
        healthy=state.checked_at is not None and not state.error,
        error=state.error or view.lag.error or state.problem,
        checked_at=timestamp(state.checked_at),
        pending_secrets=view.lag.secrets,
        lag_seconds=view.lag_seconds,
        drifted_secrets=view.drifted,
        compared_at=timestamp(state.compared_at),
        comparing=state.comparing,
    )


def _drift(found: Drift) -> pb.Drift:
    return pb.Drift(provider=found.provider, name=found.name, kind=found.kind, found_at=timestamp(found.found_at))


def _token(last: Drift) -> str:
    return base64.urlsafe_b64encode(f"{last.provider} {last.name}".encode()).decode()


def _after(token: str) -> tuple[str, str]:
    try:
        provider, _, name = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode().partition(" ")
    except (binascii.Error, ValueError):
        raise PageTokenInvalid("ListDrift") from None
    return provider, name
