"""Jobs' processes on a Ray cluster.

Ray places an actor of ours for each job at a time. It runs nobody's code: it bears the job's process where it stands
and speaks with it (`local_processes`), so a job may do there what it may do here, and the cluster's network and
environment are none of its business. An actor dies with the service that it belongs to, and its processes with it.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from services.models.jobs.links import LinkClosed, ProcessKilled, ProcessSettings
from services.models.jobs.local_processes import LocalProcesses
from services.shared.errors import Unavailable

# Seconds between two looks at whether to go on waiting; and for which an actor may take to end a process.
_TICK = 0.1
_END_SECONDS = 5.0
# Calls of an actor at a time: one sends, one receives, one ends both.
_CALLS = 3


class ClusterUnavailable(Unavailable):
    """The Ray cluster does not answer."""

    reason = "CLUSTER_UNAVAILABLE"


class RayProcesses:
    """A `Place`. Actors are kept for the next job, with what they have loaded.

    Args:
        address: of the cluster as Ray writes it: `auto`, HOST:PORT or ray://HOST:PORT.
    """

    def __init__(self, address: str, settings: ProcessSettings) -> None:
        self._address = address
        self._settings = settings
        self._actor = ray.remote(_Host).options(num_cpus=1, max_concurrency=_CALLS)
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._connecting = ThreadPoolExecutor(1, "ray-connect")
        self._connected: Future[None] | None = None

    @contextmanager
    def start(self, watch: Callable[[], None], seconds: int, *, load: bool) -> Iterator["RayLink"]:
        host = self._taken(watch)
        try:
            around = _answer(host.begin.remote(seconds, load), watch)
        except ProcessKilled:  # before it could do anything for the job
            raise ClusterUnavailable("The node that was to run the job is gone: another one is asked for.") from None
        except BaseException:
            _kill(host)  # it may never have been placed
            raise
        link = RayLink(host, around)
        try:
            yield link
        finally:
            self._leave(host, link)

    def close(self) -> None:
        with self._lock:
            left, self._idle = self._idle, []
        for host in left:
            _kill(host)
        self._connecting.shutdown(wait=False, cancel_futures=True)

    def _taken(self, watch: Callable[[], None]) -> Any:
        """An actor that does nothing now. Raises ClusterUnavailable, and what `watch` raises meanwhile."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._connected is None or (self._connected.done() and self._connected.exception()):
                # In a thread: it may take long, and whoever waits keeps a lease meanwhile.
                self._connected = self._connecting.submit(self._connect)
            connected = self._connected
        while not connected.done():
            wait([connected], _TICK)
            watch()
        if error := connected.exception():
            message = f"The Ray cluster does not answer ({type(error).__name__}): is it running?"
            raise ClusterUnavailable(message) from None
        try:
            return self._actor.remote(self._settings)
        except RayError as error:
            raise ClusterUnavailable(f"The Ray cluster takes no actor ({type(error).__name__}).") from None

    def _connect(self) -> None:
        if not ray.is_initialized():
            ray.init(self._address, namespace="strongroom", log_to_driver=False, configure_logging=False)

    def _leave(self, host: Any, link: "RayLink") -> None:
        """Ends the process; the actor goes with it if it does not say that it has."""
        try:
            link.add(ray.get(host.end.remote(), timeout=_END_SECONDS))
        except RayError:
            _kill(host)
            return
        with self._lock:
            self._idle.append(host)


class RayLink:
    """A `Link`."""

    def __init__(self, host: Any, around: Mapping[str, Any]) -> None:
        self._host = host
        self._coming: Any = None
        self._lines: list[str] = []
        self.around = around

    def send(self, kind: bytes, body: bytes | memoryview) -> None:
        try:
            _answer(self._host.send.remote(kind, bytes(body)), lambda: None)
        except ProcessKilled:
            raise LinkClosed from None

    def receive(self, seconds: float) -> tuple[bytes, bytes] | None:
        if self._coming is None:
            self._coming = self._host.receive.remote(seconds)
        ready, _ = ray.wait([self._coming], timeout=seconds)
        if not ready:
            return None
        coming, self._coming = self._coming, None
        came, lines = _answer(coming, lambda: None)
        self.add(lines)
        return None if came is None else (came[0], came[1])

    def take_lines(self) -> list[str]:
        taken, self._lines = self._lines, []
        return taken

    def add(self, lines: list[str]) -> None:
        self._lines = [*self._lines, *lines]


class _Host:
    """The actor: one process at a time, where Ray has placed it."""

    def __init__(self, settings: ProcessSettings) -> None:
        self._processes = LocalProcesses(settings)
        self._open = ExitStack()

    def begin(self, seconds: int, load: bool) -> Mapping[str, Any]:
        self._link = self._open.enter_context(self._processes.start(lambda: None, seconds, load=load))
        return self._link.around

    def send(self, kind: bytes, body: bytes) -> None:
        self._link.send(kind, body)

    def receive(self, seconds: float) -> tuple[tuple[bytes, bytes] | None, list[str]]:
        link = self._link
        return link.receive(seconds), link.take_lines()

    def end(self) -> list[str]:
        self._open.close()
        return self._link.take_lines()


def _answer(coming: Any, watch: Callable[[], None]) -> Any:
    """What an actor answers. Raises what `watch` and the actor raise, ProcessKilled if the actor is gone."""
    while True:
        try:
            return ray.get(coming, timeout=_TICK)
        except GetTimeoutError:
            watch()
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError:
            raise ProcessKilled from None


def _kill(host: Any) -> None:
    ray.kill(host, no_restart=True)
