"""All services of the contract: the edge asks auth about the methods of each, and auth describes them to reflection."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module

from google.protobuf.descriptor import ServiceDescriptor

from services.shared.access import methods_of
from services.shared.tokens import SERVICES


def contract_services() -> list[str]:
    """Full names of every gRPC service in `strongroom.{auth,models,secrets}.v1`."""
    return sorted(descriptor.full_name for descriptor in _descriptors())


def described_services() -> list[str]:
    """Those that a caller from outside can use: all but the ones whose every method is between services only."""
    return [name for name in contract_services() if not _internal(name)]


def _internal(name: str) -> bool:
    return all(any(rule.services for rule in method.rules) for method in methods_of([name]).values())


def _descriptors() -> Iterator[ServiceDescriptor]:
    for service in SERVICES:
        package = import_module(f"strongroom.{service}.v1")
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.endswith("_pb2"):
                file = import_module(f"{package.__name__}.{module.name}").DESCRIPTOR
                yield from file.services_by_name.values()
