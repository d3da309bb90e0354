"""What surrounds every method of every service, in one list.

A layer looks at a call on its way in, may replace `call.request`, and may give a context manager around the rest of the
call, which sees the outcome on the way out: those who need not see it cost every call less. Unary and streaming methods
pass through the same layers: for a stream to its end.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from itertools import chain
from typing import Any

import structlog
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status
from prometheus_client import Counter, Gauge, Histogram

from services.shared import access, errors, status, validation
from services.shared.accounts import Accounts
from services.shared.audit.layer import AuditLayers
from services.shared.call import Call
from services.shared.certificates import bind_to_certificate
from services.shared.channels import IDENTITY_HEADER
from services.shared.concurrency import ConcurrentCalls, Patience
from services.shared.identity import Principal
from services.shared.ids import new_id
from services.shared.private_socket import PrivateSocket
from services.shared.tokens import TokenVerifier
from services.shared.traces import Tracing

Layer = Callable[[Call], AbstractContextManager[None] | None]

REQUEST_ID_HEADER = "x-request-id"

REQUESTS = Counter("strongroom_requests_total", "Requests by method and gRPC code.", ["method", "code"])
_SECONDS = Histogram(
    "strongroom_request_seconds",
    "Seconds from the first byte of a request to the end of its answer.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600),
)
_RUNNING = Gauge("strongroom_requests_in_progress", "Requests that are being answered.")
_RECEIVED = Counter("strongroom_received_bytes_total", "Bytes of the messages that came.", ["method"])
_SENT = Counter("strongroom_sent_bytes_total", "Bytes of the messages that were sent.", ["method"])
# Seconds between two looks at a stream's credential: services hear of revocations as often.
_RECHECK_SECONDS = 5.0

_log = structlog.get_logger()


def layers(
    verifier: TokenVerifier,
    concurrent: ConcurrentCalls,
    patience: Patience,
    audit: AuditLayers | None = None,
    accounts: Accounts | None = None,
    socket: PrivateSocket | None = None,
    tracing: Tracing | None = None,
) -> list[Layer]:
    """The layers, outermost first."""
    return [
        *([tracing.layer] if tracing else []),  # around the log line too, which names the trace
        log_request,  # whatever happens below gets an id and ends as one line
        measure,  # next: counts what the caller sees, so outside of the translation of errors
        *([accounts.meter.watch] if accounts else []),  # likewise; whoever is refused below has used something as well
        translate_errors,  # outside of every check, whose refusals are domain errors too
        send_hints,  # only a success may say 201, and the layers below may still fail what the servicer did
        *([audit.record] if audit else []),  # outside of every check, whose refusals are events, but not as statuses
        *([socket.layer] if socket else []),  # before anybody believes what only the gateway may say
        identify(verifier),  # who calls: everything below may ask
        bind_to_certificate,  # next: a token of a service counts on that service's connection alone
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
    """Counts requests, the time they take and their bytes."""
    started = time.perf_counter()
    _RUNNING.inc()
    try:
        yield
    finally:
        _RUNNING.dec()
        requests, seconds, received, sent = _children(call.method.path, call.outcome)
        received.inc(call.bytes_received)
        sent.inc(call.bytes_sent)
        requests.inc()
        seconds.observe(time.perf_counter() - started)


@lru_cache(maxsize=4096)
def _children(path: str, outcome: str) -> tuple[Counter, Histogram, Counter, Counter]:
    """What counts the calls of a method that end so; to look it up costs as much as to count."""
    return REQUESTS.labels(path, outcome), _SECONDS.labels(path), _RECEIVED.labels(path), _SENT.labels(path)


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

    def layer(call: Call) -> None:
        if not call.method.public:
            token = call.metadata.get(IDENTITY_HEADER) or _bearer(call.metadata)
            if token:
                call.principal = verifier.verify(token)
                call.identified = True
            else:
                raise errors.Unauthenticated("Authentication required", reason="CREDENTIAL_MISSING")

    return layer


def _bearer(metadata: dict[str, str]) -> str:
    scheme, _, token = metadata.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def receive(patience: Patience) -> Layer:
    """Waits for the message of a request that is not a stream."""

    def layer(call: Call) -> None:
        if not call.streams_request:
            with patience.waiting(call):
                call.request = next(call.request, None)
            if call.request is None:
                raise errors.InvalidArgument("The call ended before its message.", reason="MESSAGE_MISSING")

    return layer


def decode(call: Call) -> None:
    """Makes messages of the bytes that came, unless the handler wants the bytes."""
    deserializer = call.deserializer
    if deserializer is not None:
        if isinstance(call.request, bytes):
            call.request = _decoded(deserializer, call.request)
        else:
            call.request = (_decoded(deserializer, message) for message in call.request)


def _decoded(deserializer: Callable[[bytes], Any], message: bytes) -> Any:
    try:
        return deserializer(message)
    except DecodeError:
        raise errors.InvalidArgument(
            "The message is not of the method's type, or nested too deep.", reason="MESSAGE_MALFORMED"
        ) from None


def authorize(call: Call) -> None:
    """Decides by the method's access rules on the decoded request; of a stream on its first message."""
    if not call.method.public:
        access.authorize(call.method, call.principal if call.identified else None, lambda: _first_message(call))


def recheck(verifier: TokenVerifier, clock: Callable[[], float] = time.monotonic) -> Layer:
    """Ends a stream whose credential is revoked while it lasts."""

    def watch(messages: Iterator[Any], principal: Principal) -> Iterator[Any]:
        checked = clock()
        for message in messages:
            if clock() - checked >= _RECHECK_SECONDS:
                verifier.recheck(principal)
                checked = clock()
            yield message

    def layer(call: Call) -> None:
        if call.identified:
            if not isinstance(call.request, Message | bytes):
                call.request = watch(call.request, call.principal)
            call.around_answers.append(lambda answers: watch(answers, call.principal))

    return layer


def validate(call: Call) -> None:
    """Checks the rules in the protos; of a stream those of its first message, the header."""
    if not call.method.protocol:
        validation.check(_first_message(call))


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
