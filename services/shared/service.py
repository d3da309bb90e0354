"""Runs a service: the server, its layers, health, reflection, metrics, and an orderly end."""

import gc
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from services.shared import access, logs
from services.shared.accounts import Accounts
from services.shared.audit.layer import AuditLayers
from services.shared.concurrency import ConcurrentCalls, Patience, Threads
from services.shared.interceptor import LayerInterceptor
from services.shared.layers import layers
from services.shared.private_socket import PrivateSocket
from services.shared.settings import ServiceSettings
from services.shared.tokens import TokenVerifier
from strongroom import allocator

_Settings = TypeVar("_Settings", bound=ServiceSettings)

_log = structlog.get_logger()

# Seconds between two attempts to start, and between two looks at the dependencies afterwards.
_RETRY_SECONDS = 0.05
_CHECK_SECONDS = 2.0
# Seconds that a stranger's message may take from the headers on.
_MESSAGE_SECONDS = 10.0


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Service:
    """What `bootstrap.build` makes of the settings.

    `services` are the full names of the gRPC services it serves, `register` adds their servicers. `start` connects to
    what the service needs and starts its threads; while it raises it is repeated, and the service is unhealthy. `ready`
    raises while a dependency fails. `close` ends threads and connections. `reflected` services are described to anyone.
    """

    name: str
    services: Sequence[str]
    register: Callable[[grpc.Server], None]
    verifier: TokenVerifier
    start: Callable[[], None] = _nothing
    ready: Callable[[], None] = _nothing
    close: Callable[[], None] = _nothing
    reflected: Sequence[str] = ()
    # The layers that record what was done and what was refused.
    audit: AuditLayers | None = None
    # What callers use and may use; `start` and `close` include its.
    accounts: Accounts | None = None
    # Of one message. Memory is taken for it, and for what it is decoded to, before it is known who sends it.
    max_request_bytes: int = 4 << 20
    # A unix socket on which it listens as well, for this user's processes alone.
    socket: PrivateSocket | None = None


class Server:
    """A service that listens. `run` keeps one for a process; tests start several in theirs."""

    def __init__(self, service: Service, settings: ServiceSettings) -> None:
        methods = access.methods_of(service.services)
        self._service = service
        self._settings = settings
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="health", daemon=True)
        threads = Threads(settings.workers, thread_name_prefix="request")
        self._patience = Patience(_MESSAGE_SECONDS)
        concurrent = ConcurrentCalls(settings.calls_per_caller)
        stack = layers(service.verifier, concurrent, self._patience, service.audit, service.accounts, service.socket)
        self._server = grpc.server(
            threads,
            interceptors=[LayerInterceptor(methods, stack, threads, settings.workers, settings.waiting_calls)],
            options=[
                ("grpc.max_receive_message_length", service.max_request_bytes),
                ("grpc.max_send_message_length", 64 << 20),
                # An identity token with everything that a key may do is longer than gRPC's 8 KiB; Envoy has 60 KiB.
                ("grpc.max_metadata_size", 64 << 10),
                # A port that is taken is an error, not shared silently with the process that has it.
                ("grpc.so_reuseport", 0),
                # Else gRPC takes in megabytes more of every stream that is read slowly, in no budget: eight forms at a
                # time made 200 MiB of it, and were no faster.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", 2 << 20),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ],
        )
        service.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if service.reflected:
            names = [*service.reflected, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self._server)
        self._report(health_pb2.HealthCheckResponse.NOT_SERVING)
        self.port = self._server.add_insecure_port(settings.listen_address(service.name))
        if service.socket:
            service.socket.listen(self._server)

    def start(self) -> None:
        """Listens. The service is healthy once its own start has succeeded."""
        self._server.start()
        self._watcher.start()

    def stop(self, grace: float | None = None) -> None:
        """Says so to who asks for health, lets requests in flight finish, closes what the service opened."""
        self._stopping.set()
        self._report(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server.stop(self._settings.drain_seconds if grace is None else grace).wait()
        self._watcher.join()
        self._service.close()

    def _watch(self) -> None:
        complained = False
        while not self._attempt(self._service.start, complain=not complained):
            complained = True
            if self._stopping.wait(_RETRY_SECONDS):
                return
        wait = 0.0
        while not self._stopping.wait(wait):
            serving = self._attempt(self._service.ready)
            state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
            self._report(state)
            self._patience.end_overdue()
            wait = _CHECK_SECONDS

    def _attempt(self, step: Callable[[], None], *, complain: bool = True) -> bool:
        try:
            step()
        except Exception as error:
            if complain:
                _log.warning("not ready", error=f"{type(error).__name__}: {error}")
            return False
        return True

    def _report(self, state: int) -> None:
        for name in ("", *self._service.services):
            self._health.set(name, state)


def run(build: Callable[[_Settings], Service], settings: _Settings, name: str) -> None:
    """Runs a service until SIGTERM or SIGINT."""
    allocator.tune()
    logs.configure(name, settings.log_level)
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    server = Server(build(settings), settings)
    if settings.metrics_listen:
        host, _, port = settings.metrics_listen.rpartition(":")
        start_http_server(int(port), addr=host)
    # What a service has imported stays: the collector of garbage need not look at it again and again.
    gc.collect()
    gc.freeze()
    gc.enable()
    server.start()
    _log.info("listening", port=server.port)
    ended.wait()
    _log.info("stopping")
    server.stop()
    _log.info("stopped")
