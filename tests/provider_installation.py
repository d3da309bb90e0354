"""A secrets service with providers, and calls to it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from services.shared.identity import Principal
from strongroom.secrets.v1 import providers_pb2, providers_pb2_grpc
from tests.audit_trails import eventually
from tests.provider_kinds import Fields
from tests.secrets_installation import Client, Installation
from tests.serving import ADMINISTRATOR


@dataclass
class Served:
    """The service while it runs."""

    secrets: Client
    providers: providers_pb2_grpc.ProviderServiceStub

    def __call__(self, method: str, principal: Principal = ADMINISTRATOR, **fields: Any) -> Any:
        """Calls ProviderService."""
        metadata = self.secrets.tokens.metadata("secrets", principal)
        request = getattr(providers_pb2, f"{method}Request")(**fields)
        return getattr(self.providers, method)(request, metadata=metadata, timeout=10)

    def show(self, name: str) -> providers_pb2.Provider:
        return next(provider for provider in self("ListProviders").providers if provider.name == name)

    def settled(self, name: str) -> providers_pb2.Provider:
        """The replica once it answers, is compared, and has seen every change."""
        return self.once(name, lambda one: one.healthy and not one.comparing and not one.pending_secrets)

    def once(self, name: str, holds: Callable[[providers_pb2.Provider], bool]) -> providers_pb2.Provider:
        eventually(lambda: holds(self.show(name)))
        return self.show(name)

    def drift(self) -> set[tuple[str, str]]:
        return {(found.name, found.kind) for found in self("ListDrift").drift}


class WithProviders(Installation):
    """An installation whose providers are configured."""

    def __init__(
        self, folder: Path, replicas: dict[str, Fields], named: dict[str, Fields], database_url: str | None = None
    ) -> None:
        super().__init__(folder, database_url)
        self.configure(replicas, named)

    def configure(self, replicas: dict[str, Fields], named: dict[str, Fields]) -> None:
        """For the next start."""
        file = self.folder / "providers.yaml"
        file.write_text(json.dumps({"replicas": [*replicas], "providers": replicas | named}))
        self.settings = self.settings.model_copy(update={"providers": file, "provider_seconds": 0.05})

    @contextmanager
    def served(self) -> Iterator[Served]:
        with self.serving() as address, grpc.insecure_channel(address) as channel:
            yield Served(self.client(address), providers_pb2_grpc.ProviderServiceStub(channel))
