"""What surrounds every method of every service, in one list.

A layer is a context manager around the rest of the call. It may replace `call.request` on the way in and look at the
outcome on the way out. Unary and streaming methods pass through the same layers: for a stream to its end.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status
from prometheus_client import Counter, Histogram

from services.shared import access, errors, status, validation
from services.shared.accounts import Accounts
from services.shared.audit.layer import AuditLayers
from services.shared.call import Call
from services.shared.channels import IDENTITY_HEADER
from services.shared.concurrency import ConcurrentCalls, Overloaded, Patience, Threads
from services.shared.identity import Principal
from services.shared.ids import new_id
from services.shared.tokens import TokenVerifier

Layer = Callable[[Call], AbstractContextManager[None]]

REQUEST_ID_HEADER = "x-request-id"

_REQUESTS = Counter("strongroom_requests_total", "Requests by method and gRPC code.", ["method", "code"])
_SECONDS = Histogram(
    "strongroom_request_seconds",
    "Seconds from the first byte of a request to the end of its answer.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600),
)
# Seconds between two looks at a stream's credential: services hear of revocations as often.
_RECHECK_SECONDS = 5.0

_log = structlog.get_logger()


def layers(
    verifier: TokenVerifier,
    concurrent: ConcurrentCalls,
    patience: Patience,
    audit: AuditLayers | None = None,
    accounts: Accounts | None = None,
) -> list[Layer]:
    """The layers, outermost first."""
    return [
        log_request,  # outermost: whatever happens below gets an id and ends as one line
        measure,  # next: counts what the caller sees, so outside of the translation of errors
        *([accounts.meter.watch] if accounts else []),  # likewise; whoever is refused below has used something as well
        translate_errors,  # outside of every check, whose refusals are domain errors too
        send_hints,  # only a success may say 201, and the layers below may still fail what the servicer did
        *([audit.record] if audit else []),  # outside of every check, whose refusals are events, but not as statuses
        identify(verifier),  # who calls: everything below may ask
        concurrent.layer,  # at once, before anything is waited for: idle calls hold threads as others do
        receive(
            patience
        ),  # now the message of a single request is waited for, which whoever is refused above need not send
        decode,  # behind it, so that what is malformed is an error like any other; nobody else reads the bytes
        authorize,  # before validation: a stranger learns nothing about what is valid
        recheck(verifier),  # behind the first message, which authorization has read: streams outlast credentials
        validate,  # the servicer sees valid requests only
        *([accounts.limit] if accounts else []),  # behind every check: a request that is refused takes no quota
        *([audit.intend] if audit else []),  # innermost: what anything above refuses is not about to happen
    ]


class LayerInterceptor(grpc.ServerInterceptor):
    """Puts the layers around the handler of every method, and gives it the threads of its callers' kind.

    A call has a thread from its headers on, and whoever sends no more keeps it. So whoever needs no credential gets
    threads apart from those who have one, and from questions of Envoy and about health, on which all of these depend.

    gRPC has a limit of all calls together, which would refuse those questions too; here each kind has its own: calls
    beyond `waiting` that wait for a thread are refused at once.
    """

    def __init__(
        self, methods: dict[str, access.Method], stack: list[Layer], threads: Threads, workers: int, waiting: int
    ) -> None:
        self._methods = methods
        self._layers = stack
        self._waiting = waiting
        self._requests = threads
        self._strangers = Threads(workers, thread_name_prefix="stranger")
        self._checks = Threads(workers, thread_name_prefix="check")
        self._refusals = Threads(1, thread_name_prefix="refusal")

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        if details.method in (access.CHECK_METHOD, access.REPORT_METHOD):
            # Between gateway and auth, many times a second: without layers.
            return _on_threads(handler, self._checks)
        method = self._methods.get(details.method)
        if method is None:
            # Not one of ours: with no rules it is refused, unless it is a protocol's.
            protocol = access.PROTOCOL_METHODS.fullmatch(details.method) is not None
            method = access.Method(details.method, protocol=protocol)
        threads = self._threads_for(method)
        if threads is not self._checks and threads.waiting >= self._waiting:
            return _refused(method, self._refusals)
        metadata = {key: value for key, value in details.invocation_metadata if isinstance(value, str)}
        return self._wrap(handler, method, metadata, threads)

    def _threads_for(self, method: access.Method) -> Threads:
        if method.path == access.HEALTH_METHOD:
            return self._checks
        return self._strangers if method.public else self._requests

    def _wrap(self, handler: Any, method: access.Method, metadata: dict[str, str], threads: Threads) -> Any:
        """The handler within the layers.

        To gRPC every request is a stream of bytes, for of others it waits before anybody has asked who calls; and one
        that can't be decoded would be an internal error without a reason. Every answer is bytes, so that they are
        counted.
        """
        # One of the four is set.
        behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        encode: Callable[[Any], bytes] = handler.response_serializer or bytes

        def begin(messages: Iterator[bytes], context: grpc.ServicerContext) -> Call:
            call = Call(method, context, metadata, messages, handler.request_deserializer)
            call.streams_request, call.streams_answer = handler.request_streaming, handler.response_streaming
            call.request = _received(call, messages)
            return call

        def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            call = begin(messages, context)
            with self._entered(call):
                call.answer = behavior(call.request, context)
                encoded = encode(call.answer)
                call.bytes_sent = len(encoded)
            return encoded

        def stream(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = begin(messages, context)
            with self._entered(call):
                answers = behavior(call.request, context)
                for around in call.around_answers:
                    answers = around(answers)
                answers = _sent(call, encode, answers)
                yield from answers

        # grpcio asks for this attribute; without it the server's own threads serve the call.
        if handler.response_streaming:
            stream.experimental_thread_pool = threads  # type: ignore[attr-defined]
            return grpc.stream_stream_rpc_method_handler(stream)
        answer.experimental_thread_pool = threads  # type: ignore[attr-defined]
        return grpc.stream_unary_rpc_method_handler(answer)

    @contextmanager
    def _entered(self, call: Call) -> Iterator[None]:
        with ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(layer(call))
            yield


def _received(call: Call, messages: Iterator[bytes]) -> Iterator[bytes]:
    for message in messages:
        call.bytes_received += len(message)
        yield message


def _sent(call: Call, encode: Callable[[Any], bytes], answers: Iterator[Any]) -> Iterator[bytes]:
    for answer in answers:
        encoded = encode(answer)
        call.bytes_sent += len(encoded)
        yield encoded


def _refused(method: access.Method, threads: Threads) -> Any:
    """A handler that refuses the call without waiting for its message, and without layers: there is no time."""

    def run(_messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        _REQUESTS.labels(method.path, "RESOURCE_EXHAUSTED").inc()
        context.abort_with_status(rpc_status.to_status(status.status_of(Overloaded(), new_id())))
        raise AssertionError  # abort_with_status has raised

    run.experimental_thread_pool = threads  # type: ignore[attr-defined]
    return grpc.stream_unary_rpc_method_handler(run)


def _on_threads(handler: Any, threads: ThreadPoolExecutor) -> Any:
    """The unary handler, served by threads of its own."""

    def run(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return handler.unary_unary(request, context)
        except errors.DomainError as error:
            context.abort_with_status(rpc_status.to_status(status.status_of(error, new_id())))

    run.experimental_thread_pool = threads  # type: ignore[attr-defined]
    return grpc.unary_unary_rpc_method_handler(run, handler.request_deserializer, handler.response_serializer)


@contextmanager
def log_request(call: Call) -> Iterator[None]:
    """One log line a request, with its id; never anything of the payload."""
    # The gateway makes the id. One from elsewhere is kept if it is short and plain: it goes into our logs.
    given = call.metadata.get(REQUEST_ID_HEADER, "")
    call.request_id = given if given.isascii() and given.replace("-", "").isalnum() and len(given) <= 64 else new_id()
    call.attach()
    started = time.perf_counter()
    try:
        yield
    finally:
        quiet = call.method.protocol and call.outcome == "OK"
        (_log.debug if quiet else _log.info)(
            "request",
            method=call.method.path,
            code=call.outcome,
            seconds=round(time.perf_counter() - started, 6),
            request_id=call.request_id,
            principal=call.principal.id,
            key_prefix=call.principal.key_prefix,
        )


@contextmanager
def measure(call: Call) -> Iterator[None]:
    """Counts requests and the time they take."""
    started = time.perf_counter()
    try:
        yield
    finally:
        _REQUESTS.labels(call.method.path, call.outcome).inc()
        _SECONDS.labels(call.method.path).observe(time.perf_counter() - started)


@contextmanager
def translate_errors(call: Call) -> Iterator[None]:
    """Turns domain errors into a status with one ErrorInfo, and the unforeseen into "internal" and an id."""
    try:
        yield
    except errors.DomainError as error:
        _abort(call, status.status_of(error, call.request_id))
    except Exception as error:
        if not call.context.is_active():
            # The caller has gone; what was raised is the broken stream.
            call.outcome = "CANCELLED"
            raise
        if (known := status.foreseen(error)) is not None:
            _abort(call, status.status_of(known, call.request_id))
        _log.exception("unforeseen error", method=call.method.path, request_id=call.request_id)
        _abort(call, status.internal_status(call.request_id))


def _abort(call: Call, rpc: Any) -> None:
    converted: Any = rpc_status.to_status(rpc)
    call.outcome = converted.code.name
    # Of a call that ends before anything is sent these are its headers.
    trailers = (*converted.trailing_metadata, *call.hints)
    call.context.abort_with_status(converted._replace(trailing_metadata=trailers))


def identify(verifier: TokenVerifier) -> Layer:
    """Establishes who calls, from a token alone: an API key is accepted at the gateway, never here."""

    @contextmanager
    def layer(call: Call) -> Iterator[None]:
        if not call.method.public:
            token = call.metadata.get(IDENTITY_HEADER) or _bearer(call.metadata)
            if token:
                call.principal = verifier.verify(token)
                call.identified = True
            else:
                raise errors.Unauthenticated("Authentication required", reason="CREDENTIAL_MISSING")
        yield

    return layer


def _bearer(metadata: dict[str, str]) -> str:
    scheme, _, token = metadata.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def receive(patience: Patience) -> Layer:
    """Waits for the message of a request that is not a stream."""

    @contextmanager
    def layer(call: Call) -> Iterator[None]:
        if not call.streams_request:
            with patience.waiting(call):
                call.request = next(call.request, None)
            if call.request is None:
                raise errors.InvalidArgument("The call ended before its message.", reason="MESSAGE_MISSING")
        yield

    return layer


@contextmanager
def decode(call: Call) -> Iterator[None]:
    """Makes messages of the bytes that came, unless the handler wants the bytes."""
    deserializer = call.deserializer
    if deserializer is not None:
        if isinstance(call.request, bytes):
            call.request = _decoded(deserializer, call.request)
        else:
            call.request = (_decoded(deserializer, message) for message in call.request)
    yield


def _decoded(deserializer: Callable[[bytes], Any], message: bytes) -> Any:
    try:
        return deserializer(message)
    except DecodeError:
        text = "The message is not of the method's type, or nested too deep."
        raise errors.InvalidArgument(text, reason="MESSAGE_MALFORMED") from None


@contextmanager
def authorize(call: Call) -> Iterator[None]:
    """Decides by the method's access rules on the decoded request; of a stream on its first message."""
    if not call.method.public:
        access.authorize(call.method, call.principal if call.identified else None, lambda: _first_message(call))
    yield


def recheck(verifier: TokenVerifier, clock: Callable[[], float] = time.monotonic) -> Layer:
    """Ends a stream whose credential is revoked while it lasts."""

    def watch(messages: Iterator[Any], principal: Principal) -> Iterator[Any]:
        checked = clock()
        for message in messages:
            if clock() - checked >= _RECHECK_SECONDS:
                verifier.recheck(principal)
                checked = clock()
            yield message

    @contextmanager
    def layer(call: Call) -> Iterator[None]:
        if call.identified:
            if not isinstance(call.request, Message | bytes):
                call.request = watch(call.request, call.principal)
            call.around_answers.append(lambda answers: watch(answers, call.principal))
        yield

    return layer


@contextmanager
def validate(call: Call) -> Iterator[None]:
    """Checks the rules in the protos; of a stream those of its first message, the header."""
    if not call.method.protocol:
        validation.check(_first_message(call))
    yield


@contextmanager
def send_hints(call: Call) -> Iterator[None]:
    """Tells the caller how its quota is, and the gateway the HTTP status of a success that is not 200.

    A streamed answer has begun when this is known: its servicer sends headers itself.
    """
    yield
    if call.method.http_status:
        call.hints.append(("x-http-code", str(call.method.http_status)))
    if call.hints and not call.streams_answer:
        call.context.send_initial_metadata(tuple(call.hints))


def _first_message(call: Call) -> Message:
    """The request, or the first message of a stream, which stays in it. Raw handlers get bytes: those are decoded."""
    if call.first is None:
        first = call.request
        if not isinstance(first, Message | bytes):
            first = next(call.request, None)
            if first is None:
                raise errors.InvalidArgument("The stream ended before its first message.", reason="STREAM_EMPTY")
            call.request = chain((first,), call.request)
        if isinstance(first, bytes):
            assert call.method.request_type is not None
            first = _decoded(call.method.request_type.FromString, first)
        call.first = first
    return call.first
