"""How calls get their layers and their threads: what gRPC is given around every handler."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
from grpc_status import rpc_status

from services.shared import access, status
from services.shared.call import Call
from services.shared.certificates import only_gateway
from services.shared.concurrency import Overloaded, Threads
from services.shared.ids import new_id
from services.shared.layers import REQUESTS, Layer


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
        # By path, of the methods alone that there are.
        self._wrapped: dict[str, Any] = {}
        self._waiting = waiting
        self._requests = threads
        self._strangers = Threads(workers, thread_name_prefix="stranger")
        self._checks = Threads(workers, thread_name_prefix="check")
        self._refusals = Threads(1, thread_name_prefix="refusal")

    def waiting(self) -> dict[str, int]:
        """How many calls wait for a thread, by the kind of their caller."""
        pools = {"known": self._requests, "stranger": self._strangers, "check": self._checks}
        return {kind: threads.waiting for kind, threads in pools.items()}

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
        wrapped = self._wrapped.get(details.method)
        if wrapped is None:
            wrapped = self._wrap(handler, method, threads)
            if details.method in self._methods:
                self._wrapped[details.method] = wrapped
        return wrapped

    def _threads_for(self, method: access.Method) -> Threads:
        if method.path == access.HEALTH_METHOD:
            return self._checks
        return self._strangers if method.public else self._requests

    def _wrap(self, handler: Any, method: access.Method, threads: Threads) -> Any:
        """The handler within the layers.

        To gRPC every request is a stream of bytes, for of others it waits before anybody has asked who calls; and one
        that can't be decoded would be an internal error without a reason. Every answer is bytes, so that they are
        counted.
        """
        # One of the four is set.
        behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        encode: Callable[[Any], bytes] = handler.response_serializer or bytes

        def begin(messages: Iterator[bytes], context: grpc.ServicerContext) -> Call:
            given = context.invocation_metadata()
            metadata = {key: value for key, value in given if isinstance(value, str)}
            call = Call(method, context, metadata, messages, handler.request_deserializer)
            call.streams_request, call.streams_answer = handler.request_streaming, handler.response_streaming
            call.request = _received(call, messages)
            return call

        def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            call = begin(messages, context)
            with ExitStack() as stack:
                self._enter(call, stack)
                call.answer = behavior(call.request, context)
                encoded = encode(call.answer)
                call.bytes_sent = len(encoded)
            return encoded

        def stream(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = begin(messages, context)
            with ExitStack() as stack:
                self._enter(call, stack)
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

    def _enter(self, call: Call, stack: ExitStack) -> None:
        for layer in self._layers:
            around = layer(call)
            if around is not None:
                stack.enter_context(around)


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
        REQUESTS.labels(method.path, "RESOURCE_EXHAUSTED").inc()
        context.abort_with_status(rpc_status.to_status(status.status_of(Overloaded(), new_id())))
        raise AssertionError  # abort_with_status has raised

    run.experimental_thread_pool = threads  # type: ignore[attr-defined]
    return grpc.stream_unary_rpc_method_handler(run)


def _on_threads(handler: Any, threads: ThreadPoolExecutor) -> Any:
    """The unary handler, served by threads of its own."""

    def run(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            only_gateway(context)
            return handler.unary_unary(request, context)
        except Exception as error:
            if (known := status.foreseen(error)) is None:
                raise
            context.abort_with_status(rpc_status.to_status(status.status_of(known, new_id())))

    run.experimental_thread_pool = threads  # type: ignore[attr-defined]
    return grpc.unary_unary_rpc_method_handler(run, handler.request_deserializer, handler.response_serializer)
