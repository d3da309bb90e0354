"""Metrics for Prometheus: what is counted as it happens, and what is looked up when somebody asks.

Counters stand beside what they count. docs/observability.md has them all with their units, and a test holds it to that.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import structlog
from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_log = structlog.get_logger()


@dataclass(frozen=True)
class Reading:
    """What something is at this moment. Labels are names that an operator gave: few, and nobody else's."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


Readings = Callable[[], Iterable[Reading]]


def none() -> Iterable[Reading]:
    return ()


class _Asked(Collector):
    """Asks at every scrape. What can't be answered is left out, and the rest is there."""

    def __init__(self, sources: Iterable[Readings]) -> None:
        self._sources = tuple(sources)

    def describe(self) -> Iterable[Metric]:
        # Nothing is asked of a service that has not started.
        return ()

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for source in self._sources:
            try:
                for one in source():
                    family = families.setdefault(
                        one.name, GaugeMetricFamily(one.name, one.help, labels=tuple(one.labels))
                    )
                    family.add_metric(tuple(one.labels.values()), one.value)
            except Exception as error:
                _log.warning("metrics are missing", error=type(error).__name__)
        yield from families.values()


def serve(listen: str, service: str, data_dir: Path, *sources: Readings) -> None:
    """Answers Prometheus at host:port `listen`, from now until the process ends."""

    def process() -> Iterator[Reading]:
        yield Reading("strongroom_build_info", "1, by version.", 1, {"service": service, "version": _version()})
        if data_dir.is_dir():
            room = os.statvfs(data_dir)
            free, size = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
            yield Reading("strongroom_data_free_bytes", "Free bytes where the service keeps files.", free)
            yield Reading("strongroom_data_size_bytes", "Bytes there, free or not.", size)

    REGISTRY.register(_Asked([process, *sources]))
    host, _, port = listen.rpartition(":")
    start_http_server(int(port), addr=host.strip("[]"))


def _version() -> str:
    return version("strongroom")
