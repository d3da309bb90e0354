"""The client's patience: limits are heeded, a server that is away is asked again at random moments, nothing twice."""

import logging
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from strongroom.auth.v1 import api_keys_pb2 as pb
from strongroom.auth.v1 import api_keys_pb2_grpc
from strongroom.connection import Connection
from strongroom.errors import InvalidArgument, RateLimited, StrongroomError, Unavailable
from strongroom.persevere import persevere
from strongroom.retries import ATTEMPTS, Repeat, Retries, log


@dataclass
class Moody(api_keys_pb2_grpc.ApiKeyServiceServicer):
    """A server that refuses as often as it is told to, over real gRPC."""

    refusals: list[status_pb2.Status]
    trailers: tuple[tuple[str, str], ...] = ()
    calls: list[str] = field(default_factory=list)

    def GetApiKey(self, request: pb.GetApiKeyRequest, context: grpc.ServicerContext) -> pb.ApiKey:
        return self._answer("GetApiKey", context)

    def ExtendApiKey(self, request: pb.ExtendApiKeyRequest, context: grpc.ServicerContext) -> pb.ApiKey:
        return self._answer("ExtendApiKey", context)

    def _answer(self, method: str, context: grpc.ServicerContext) -> pb.ApiKey:
        self.calls.append(method)
        if self.refusals:
            refused = rpc_status.to_status(self.refusals.pop(0))
            if self.trailers:
                context.set_trailing_metadata(self.trailers)
                context.abort(refused.code, refused.details)
            context.abort_with_status(refused)
        return pb.ApiKey(name="made")


@dataclass
class Asking:
    """A client of a Moody server. `waits` are the seconds it would have waited, each."""

    connection: Connection
    waits: list[float]

    def get(self, repeat: Repeat = Repeat.SAFE) -> pb.ApiKey:
        stub = api_keys_pb2_grpc.ApiKeyServiceStub(self.connection.channel)
        return self.connection.call(stub.GetApiKey, pb.GetApiKeyRequest(id="1"), repeat=repeat)

    def extend(self) -> pb.ApiKey:
        stub = api_keys_pb2_grpc.ApiKeyServiceStub(self.connection.channel)
        return self.connection.call(stub.ExtendApiKey, pb.ExtendApiKeyRequest(id="1", days=1))


@contextmanager
def asking(moody: Moody) -> Iterator[Asking]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    api_keys_pb2_grpc.add_ApiKeyServiceServicer_to_server(moody, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    waits: list[float] = []
    connection = Connection(f"http://127.0.0.1:{port}", api_key="sr_x", retries=Retries(sleep=waits.append))
    try:
        yield Asking(connection, waits)
    finally:
        connection.close()
        server.stop(None).wait()


def refusal(code: grpc.StatusCode, reason: str = "", retry_after: int | None = None) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message="Not now.")
    if reason:
        info = any_pb2.Any()
        info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="strongroom"))
        status.details.append(info)
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = retry_after
        status.details.add().Pack(retry)
    return status


EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.mark.row("S3.7")
def test_a_limit_is_waited_for_as_long_as_the_server_says_even_by_what_is_never_repeated_otherwise() -> None:
    moody = Moody([refusal(EXHAUSTED, "RATE_LIMITED", retry_after=7), refusal(EXHAUSTED, "RATE_LIMITED", 2)])
    with asking(moody) as client:
        assert client.extend().name == "made"
    assert moody.calls == ["ExtendApiKey"] * 3
    assert 7 <= client.waits[0] <= 7.4
    assert 2 <= client.waits[1] <= 2.8


@pytest.mark.row("S3.7")
def test_the_header_of_a_gateway_is_heeded_as_well() -> None:
    moody = Moody([refusal(EXHAUSTED)], trailers=(("retry-after", "3"),))
    with asking(moody) as client:
        client.extend()
    assert 3 <= client.waits[0] <= 3.4


def test_a_limit_that_ends_too_late_is_told_at_once() -> None:
    moody = Moody([refusal(EXHAUSTED, "QUOTA_EXCEEDED", retry_after=3600)])
    with asking(moody) as client, pytest.raises(RateLimited) as caught:
        client.get()
    assert (caught.value.reason, caught.value.retry_after, client.waits) == ("QUOTA_EXCEEDED", 3600, [])


def test_what_is_exhausted_for_good_is_not_asked_for_again() -> None:
    moody = Moody([refusal(EXHAUSTED, "BODY_TOO_LARGE")])
    with asking(moody) as client, pytest.raises(RateLimited):
        client.get()
    assert moody.calls == ["GetApiKey"]


@pytest.mark.row("S3.7")
def test_a_server_that_is_away_is_asked_again_and_by_one_layer_alone() -> None:
    moody = Moody([refusal(UNAVAILABLE)] * 100)
    with asking(moody) as client, pytest.raises(Unavailable):
        client.get()
    assert len(moody.calls) == ATTEMPTS
    assert len(client.waits) == ATTEMPTS - 1


def test_what_is_not_safe_to_repeat_is_not_repeated() -> None:
    moody = Moody([refusal(UNAVAILABLE)])
    with asking(moody) as client:
        with pytest.raises(Unavailable):
            client.extend()
        assert client.extend().name == "made"
    assert client.waits == []


def test_a_limit_is_not_waited_for_by_who_does_not_want_to() -> None:
    moody = Moody([refusal(EXHAUSTED, "SIGN_IN_THROTTLED", retry_after=5)])
    with asking(moody) as client, pytest.raises(RateLimited) as caught:
        client.get(Repeat.NEVER)
    assert caught.value.retry_after == 5


def test_errors_of_the_caller_are_not_repeated() -> None:
    moody = Moody([refusal(grpc.StatusCode.INVALID_ARGUMENT, "SCOPE_INVALID")])
    with asking(moody) as client, pytest.raises(InvalidArgument):
        client.get()
    assert moody.calls == ["GetApiKey"]


@pytest.mark.row("S3.7")
def test_the_waits_grow_and_are_drawn_from_nothing_up_to_their_bound() -> None:
    first: list[float] = []
    for _client in range(200):
        waits: list[float] = []

        def away() -> None:
            raise Unavailable("away", code="UNAVAILABLE")

        with pytest.raises(Unavailable):
            Retries(sleep=waits.append).run(away, Repeat.SAFE)
        assert all(0 <= wait <= min(5, 0.4 * 2**number) for number, wait in enumerate(waits))
        first.append(waits[0])
    # Of 200 draws between 0 and 0.4 s, some fall in the lowest and some in the highest tenth.
    assert min(first) < 0.04
    assert max(first) > 0.36


def test_waiting_for_a_limit_is_told_to_who_listens(caplog: pytest.LogCaptureFixture) -> None:
    moody = Moody([refusal(EXHAUSTED, "RATE_LIMITED", retry_after=7)])
    with caplog.at_level(logging.INFO, log.name), asking(moody) as client:
        client.get()
    assert caplog.messages == ["too many requests, calling again in 8 s"]


@pytest.mark.row("S3.7")
def test_a_transfer_waits_for_the_limit_and_goes_on() -> None:
    refusals: list[StrongroomError] = [RateLimited("Slowly.", retry_after=30), RateLimited("Slowly.", retry_after=20)]
    waits: list[float] = []

    def attempt() -> str:
        if refusals:
            raise refusals.pop(0)
        return "done"

    assert persevere(attempt, lambda: 0, sleep=waits.append) == "done"
    assert waits == [30, 20]


def test_a_transfer_does_not_wait_for_what_will_not_end() -> None:
    def attempt() -> None:
        raise RateLimited("Too large.")

    with pytest.raises(RateLimited):
        persevere(attempt, lambda: 0, sleep=lambda _seconds: pytest.fail("waited"))


def test_a_transfer_does_not_wait_for_tomorrow() -> None:
    def attempt() -> None:
        raise RateLimited("Ten uploads a day.", retry_after=40_000)

    with pytest.raises(RateLimited, match="Ten uploads"):
        persevere(attempt, lambda: 0, sleep=lambda _seconds: pytest.fail("waited"))


@pytest.mark.parametrize("seconds", [2**63 - 1, 10**12, -5], ids=str)
def test_a_delay_that_nobody_means_does_no_harm(seconds: int) -> None:
    moody = Moody([refusal(EXHAUSTED, "RATE_LIMITED", retry_after=seconds)])
    with asking(moody) as client:
        if seconds < 0:
            assert client.get().name == "made"
            assert 0 <= client.waits[0] <= 0.4
        else:
            with pytest.raises(RateLimited):
                client.get()
            assert client.waits == []


@pytest.mark.parametrize("value", ["9" * 5000, "-1", "soon", "", "1e3"])
def test_a_header_that_nobody_means_does_no_harm(value: str) -> None:
    with asking(Moody([refusal(EXHAUSTED)], trailers=(("retry-after", value),))) as client, pytest.raises(RateLimited):
        client.extend()
    assert client.waits == []
