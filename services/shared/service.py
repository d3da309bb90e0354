"""Runs a service: the server, its layers, health, reflection, metrics, and an orderly end."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.shared import access, logs, metrics, traces
from services.shared.accounts import Accounts
from services.shared.audit.layer import AuditLayers
from services.shared.certificates import Certificates
from services.shared.concurrency import ConcurrentCalls, Patience, Threads
from services.shared.interceptor import LayerInterceptor
from services.shared.layers import layers
from services.shared.private_socket import PrivateSocket
from services.shared.settings import ServiceSettings
from services.shared.tokens import TokenVerifier
from strongroom import allocator
from strongroom.certificates import CertificateError

_Settings = TypeVar("_Settings", bound=ServiceSettings)

_log = structlog.get_logger()

# Seconds between two attempts to start, and between two looks at the dependencies afterwards.
_RETRY_SECONDS = 0.05
_CHECK_SECONDS = 2.0
# Seconds that a stranger's message may take from the headers on.
_MESSAGE_SECONDS = 10.0
# Seconds until a part has to show its certificate again: on a connection nobody looks whether it is still good and its
# authority trusted. Calls that are under way end on the old one.
_CONNECTION_SECONDS = 60.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_OPTIONS = [
    ("grpc.max_send_message_length", 64 << 20),
    # An identity token with everything that a key may do is longer than gRPC's 8 KiB; Envoy has 60 KiB.
    ("grpc.max_metadata_size", 64 << 10),
    # A port that is taken is an error, not shared silently with the process that has it.
    ("grpc.so_reuseport", 0),
    # Else gRPC takes in megabytes more of every stream that is read slowly, in no budget: eight forms at a time made
    # 200 MiB of it, and were no faster.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 2 << 20),
    # More often than the gateway (each second) and other services (two) ask whether we are alive.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.keepalive_permit_without_calls", 1),
]


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
    # What its metrics tell beside what is counted.
    readings: metrics.Readings = metrics.none
    # With them its port speaks TLS, with parts alone.
    certificates: Certificates | None = None


class Server:
    """A service that listens. `run` keeps one for a process; tests start several in theirs."""

    def __init__(self, service: Service, settings: ServiceSettings, tracing: traces.Tracing | None = None) -> None:
        methods = access.methods_of(service.services)
        self._service = service
        self._settings = settings
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="health", daemon=True)
        threads = Threads(settings.workers, thread_name_prefix="request")
        self._patience = Patience(_MESSAGE_SECONDS)
        concurrent = ConcurrentCalls(settings.calls_per_caller)
        stack = layers(
            service.verifier, concurrent, self._patience, service.audit, service.accounts, service.socket, tracing
        )
        self._serving = False
        self._interceptor = LayerInterceptor(methods, stack, threads, settings.workers, settings.waiting_calls)
        options = [("grpc.max_receive_message_length", service.max_request_bytes), *_OPTIONS]
        if service.certificates is not None:
            options.append(("grpc.max_connection_age_ms", int(_CONNECTION_SECONDS * 1000)))
        self._server = grpc.server(threads, interceptors=[self._interceptor], options=options)
        service.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if service.reflected:
            names = [*service.reflected, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self._server)
        self._report(health_pb2.HealthCheckResponse.NOT_SERVING)
        self.port = _bind(self._server, settings.listen_address(service.name), service.certificates)
        if service.socket:
            service.socket.listen(self._server)

    def start(self) -> None:
        """Listens. The service is healthy once its own start has succeeded."""
        self._server.start()
        self._watcher.start()

    def give_notice(self) -> None:
        """Tells who asks for health that the end is near, and goes on serving until they have sent others elsewhere."""
        self._stopping.set()
        self._health.enter_graceful_shutdown()  # whatever the watcher finds now
        time.sleep(self._settings.notice_seconds)

    def stop(self, grace: float | None = None) -> None:
        """Says so to who asks for health, lets requests in flight finish, closes what the service opened."""
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        self._server.stop(self._settings.drain_seconds if grace is None else grace).wait()
        self._watcher.join()
        self._service.close()

    def readings(self) -> Iterator[metrics.Reading]:
        """What the service is at this moment, for its metrics."""
        yield metrics.Reading("strongroom_ready", "1 while the service can do its work, else 0.", self._serving)
        for kind, waiting in self._interceptor.waiting().items():
            yield metrics.Reading(
                "strongroom_requests_waiting", "Requests that wait for a thread.", waiting, {"kind": kind}
            )
        if self._serving:
            yield from self._service.readings()

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
        self._serving = state == health_pb2.HealthCheckResponse.SERVING
        for name in ("", *self._service.services):
            self._health.set(name, state)


def _bind(server: grpc.Server, address: str, certificates: Certificates | None) -> int:
    if certificates is not None:
        return int(server.add_secure_port(address, certificates.server_credentials()))
    host = address.rpartition(":")[0].strip("[]")
    if host not in _LOOPBACK:
        _log.warning("what comes and goes can be read on the way: STRONGROOM_PKI_DIR is not set", address=address)
    return int(server.add_insecure_port(address))


def run(build: Callable[[_Settings], Service], settings: _Settings, name: str) -> None:
    """Runs a service until SIGTERM or SIGINT."""
    allocator.tune()
    try:
        tracing = traces.Tracing.configured(name, os.environ)
    except traces.TracingUnavailable as error:
        raise SystemExit(str(error)) from None
    logs.configure(name, settings.log_level, *([traces.named] if tracing else []))
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        server = Server(build(settings), settings, tracing)
    except CertificateError as error:
        raise SystemExit(str(error)) from None
    if settings.metrics_listen:
        metrics.serve(settings.metrics_listen, name, settings.data_dir, server.readings)
    # What a service has imported stays: the collector of garbage need not look at it again and again.
    gc.collect()
    gc.freeze()
    gc.enable()
    server.start()
    _log.info("listening", port=server.port)
    ended.wait()
    _log.info("stopping")
    server.give_notice()
    server.stop()
    if tracing:
        tracing.close()
    _log.info("stopped")
