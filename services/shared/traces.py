"""Traces: a span for each call that a service answers, and for each that it makes of another, by W3C trace context.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT is set; until then nothing of OpenTelemetry is imported. What else can be set are
the SDK's own variables: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.

A layer of ours and not `opentelemetry-instrumentation-grpc`: that has no release that promises to stay as it is, and
notes the texts of exceptions. A span has names, codes and ids; of a request and its errors it has nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

import grpc
from structlog.typing import EventDict

from services.shared.call import Call

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"

# Codes for which the server has to answer, after the semantic conventions of OpenTelemetry for gRPC.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})

Headers = tuple[tuple[str, str], ...]


class TracingUnavailable(RuntimeError):
    """Traces are asked for and can't be made. The message says what to do."""


class Tracing:
    """Makes the spans of one service. `exporter` takes them in the background; `close` sends what is left."""

    def __init__(self, service: str, exporter: "SpanExporter") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.namespace": "strongroom", "service.name": f"strongroom-{service}"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("strongroom")
        # Nothing but trace context: baggage is text of a stranger's that would travel on.
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def configured(cls, service: str, environment: Mapping[str, str]) -> Self | None:
        """As the environment says; None if it asks for no traces. Raises TracingUnavailable."""
        if not environment.get(ENDPOINT):
            return None
        return cls(service, _exporter(environment.get(PROTOCOL) or "http/protobuf"))

    def close(self) -> None:
        self._provider.shutdown()

    @contextmanager
    def layer(self, call: Call) -> Iterator[None]:
        """The span of a call, from its headers to its end. Questions about health make none."""
        if call.method.protocol:
            yield
            return
        from opentelemetry.context import attach, detach
        from opentelemetry.trace import SpanKind, set_span_in_context

        parent = self._propagator.extract(call.metadata)
        span = self._tracer.start_span(
            call.method.path[1:], parent, SpanKind.SERVER, _rpc(call.method.path), record_exception=False
        )
        token, active = attach(set_span_in_context(span, parent)), _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(active)
            detach(token)
            span.set_attribute("strongroom.request_id", call.request_id)
            if call.principal.key_prefix:
                span.set_attribute("strongroom.key_prefix", call.principal.key_prefix)
            _end(span, call.outcome, failed=call.outcome in _FAULTS)

    @contextmanager
    def outgoing(self, method: str) -> Iterator[tuple[Headers, Callable[[Any], None]]]:
        from opentelemetry.trace import SpanKind, set_span_in_context

        span = self._tracer.start_span(method[1:], kind=SpanKind.CLIENT, attributes=_rpc(method))
        headers: dict[str, str] = {}
        self._propagator.inject(headers, set_span_in_context(span))

        def ended(answer: Any) -> None:
            code = answer.code().name
            _end(span, code, failed=code != "OK")

        yield tuple(headers.items()), ended


# Whose call this thread answers.
_ACTIVE: ContextVar[Tracing | None] = ContextVar("tracing", default=None)


@contextmanager
def calling(method: str) -> Iterator[tuple[Headers, Callable[[Any], None]]]:
    """Around a call of another service: the headers that carry the trace on, and who is to be told of the answer."""
    tracing = _ACTIVE.get()
    if tracing is None:
        yield (), _nobody
    else:
        with tracing.outgoing(method) as call:
            yield call


def named(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Writes the trace and the span into a line of the log."""
    from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

    context = get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format_trace_id(context.trace_id)
        event["span_id"] = format_span_id(context.span_id)
    return event


def _nobody(_answer: Any) -> None:
    return None


def _rpc(path: str) -> dict[str, str]:
    service, _, method = path[1:].rpartition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}


def _end(span: "Span", code: str, *, failed: bool) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
    if failed:
        span.set_status(StatusCode.ERROR)
    span.end()


def _exporter(protocol: str) -> "SpanExporter":
    try:
        if protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

            return OverGrpc()
        if protocol == "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

            return OverHttp()
    except ImportError:
        raise TracingUnavailable(f"{ENDPOINT} is set: pip install 'strongroom[otel]', or unset it.") from None
    raise TracingUnavailable(f"{PROTOCOL} is http/protobuf or grpc.")
