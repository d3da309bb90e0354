"""The rate limit at the edge: who is counted, what is not, what the refused are told."""

import concurrent.futures
import time
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from services.auth.admission import Attempt
from services.auth.guesses import Guesses
from strongroom import rates
from strongroom.auth.v1 import tokens_pb2, tokens_pb2_grpc
from strongroom.local import gateway
from strongroom.local.clusters import PROTOCOLS, STRANGERS
from strongroom.local.contract import Contract
from strongroom.local.errors import StartError
from strongroom.local.limits import BULK, BULK_FACTOR
from strongroom.local.policy import Policy
from strongroom.models.v1 import weights_pb2, weights_pb2_grpc
from tests.stack import RunningStack, Stack
from tests.terminal import Terminal
from tests.test_attacks import Idle, processor_seconds
from tests.test_edge_origins import FRIEND, metric
from tests.test_gateway_rest import Answer, admin, assert_problem, call

LIMIT = 8
SIGN_IN = "/api/v1/sessions"
NOBODY = b'{"email": "nobody@example.com", "password": "a wrong password"}'


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One that fills a bucket so slowly that no token comes back while a test runs."""
    folder = tmp_path_factory.mktemp("limits") / "data"
    environment = {"STRONGROOM_RATE_LIMIT": f"{LIMIT}/hour", "STRONGROOM_ALLOWED_ORIGINS": FRIEND}
    with RunningStack(folder, **environment) as running:
        yield running


@pytest.fixture(scope="module")
def keys(stack: Stack) -> Iterator[str]:
    """Keys that nobody has used yet: the administrator's bucket is enough for a few."""
    body = {"name": "limits", "permission_set": "full_access"}
    return iter([admin(stack, "POST", "/api-keys", body).json["key"] for _ in range(LIMIT - 1)])


def statuses(stack: Stack, verb: str, path: str, headers: dict[str, str], body: bytes | None = None) -> list[int]:
    return [call(stack, verb, path, headers, body).status for _ in range(LIMIT + 1)]


def assert_limited(answer: Answer) -> None:
    problem = assert_problem(answer, 429, "RATE_LIMITED")
    assert problem["detail"] == "Too many requests. Try again later."
    # At 8 an hour a token comes back in seven and a half minutes.
    assert 1 <= int(answer.headers["retry-after"]) <= 450
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert answer.headers["x-ratelimit-limit"].startswith(str(LIMIT))
    assert answer.headers["ratelimit-policy"] == f"{LIMIT};w=3600"


@pytest.mark.row("S3.7")
def test_a_key_is_limited_and_told_when_to_try_again(stack: Stack, keys: Iterator[str]) -> None:
    key = {"X-API-Key": next(keys)}
    first = call(stack, "GET", "/api/v1/caller", key)
    assert (first.status, first.headers["x-ratelimit-remaining"]) == (200, str(LIMIT - 1))
    assert statuses(stack, "GET", "/api/v1/caller", key) == [200] * (LIMIT - 1) + [429] * 2
    limited = call(stack, "GET", "/api-keys", {**key, "Origin": FRIEND})
    assert_limited(limited)
    assert limited.headers["access-control-allow-origin"] == FRIEND
    other = Terminal(stack.url, next(keys))("status").out
    assert other.endswith(f"\nrequests left: {LIMIT - 1} of {LIMIT} an hour\n"), "others have their own"


@pytest.mark.row("S3.7")
def test_over_grpc_it_is_resource_exhausted_with_retry_info(stack: Stack, keys: Iterator[str]) -> None:
    metadata = [("x-api-key", next(keys))]
    with grpc.insecure_channel(stack.target) as channel:
        stub = tokens_pb2_grpc.TokenServiceStub(channel)
        for _ in range(LIMIT):
            stub.GetCaller(tokens_pb2.GetCallerRequest(), metadata=metadata, timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetCaller(tokens_pb2.GetCallerRequest(), metadata=metadata, timeout=10)
    assert_exhausted(caught.value)


def assert_exhausted(error: grpc.RpcError) -> None:
    assert_told_to_wait(error, grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")


def assert_told_to_wait(error: grpc.RpcError, code: grpc.StatusCode, reason: str) -> None:
    assert error.code() == code, error
    status = rpc_status.from_call(error)
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert [status.details[0].Unpack(info), status.details[1].Unpack(retry)] == [True, True]
    assert (info.reason, info.domain) == (reason, "strongroom")
    assert 1 <= retry.retry_delay.seconds <= 450


def test_a_token_and_its_key_are_one_client(stack: Stack, keys: Iterator[str]) -> None:
    key = {"X-API-Key": next(keys)}
    token = call(stack, "POST", "/api/v1/tokens", key, b"{}").json["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert statuses(stack, "GET", "/api/v1/caller", bearer) == [200] * (LIMIT - 1) + [429] * 2
    assert_limited(call(stack, "GET", "/api/v1/caller", key))


def test_a_verified_token_never_costs_a_call_to_auth(stack: Stack, keys: Iterator[str]) -> None:
    key = {"X-API-Key": next(keys)}
    token = call(stack, "POST", "/api/v1/tokens", key, b"{}").json["access_token"]
    before = metric(stack, "strongroom_edge_checks_total")
    for _ in range(LIMIT - 2):
        path = "/api/v1/managers/default/models"  # which the models service answers
        assert call(stack, "GET", path, {"Authorization": f"Bearer {token}"}).status == 200
    assert metric(stack, "strongroom_edge_checks_total") == before
    assert call(stack, "GET", "/api/v1/caller", key).status == 200
    assert metric(stack, "strongroom_edge_checks_total") == before + 1


def test_moving_weights_has_a_bucket_of_its_own(stack: Stack, keys: Iterator[str]) -> None:
    key = next(keys)
    path = "/api/v1/managers/default/models/limits/versions/v1/files/weights"
    put = [call(stack, "PUT", f"{path}-{number}", {"X-API-Key": key}, b"weights").status for number in range(LIMIT + 2)]
    assert 429 not in put
    request = weights_pb2.HasChunksRequest(manager_id="default", model_name="limits", upload_id="none")
    with grpc.insecure_channel(stack.target) as channel:
        stub = weights_pb2_grpc.WeightsServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.HasChunks(request, metadata=[("x-api-key", key)], timeout=10)
    assert caught.value.code() != grpc.StatusCode.RESOURCE_EXHAUSTED
    answer = call(stack, "GET", "/api/v1/caller", {"X-API-Key": key})
    assert (answer.status, answer.headers["x-ratelimit-remaining"]) == (200, str(LIMIT - 1))


def test_health_static_paths_and_protocols_are_not_counted(stack: Stack) -> None:
    for path in ("/health", "/", "/.well-known/jwks.json"):
        assert statuses(stack, "GET", path, {}) == [200] * (LIMIT + 1)
    with grpc.insecure_channel(stack.target) as channel:
        for _ in range(LIMIT + 1):
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_without_a_credential_is_not_read(stack: Stack, declared: bool) -> None:
    # Others use this gateway too: the cheapest of some attempts tells.
    assert min(_cost_of_a_large_body(stack, declared=declared) for _ in range(4)) < 300


def _cost_of_a_large_body(stack: Stack, *, declared: bool) -> int:
    """In milliseconds of the gateway's processor time."""
    body = iter([b'{"email": "', *[b"a" * (1 << 20)] * 3])
    headers = {"content-length": str(3 << 20)} if declared else {}
    before = processor_milliseconds(stack)
    with suppress(BrokenPipeError, ConnectionResetError):
        assert_problem(call(stack, "POST", SIGN_IN, headers, None if declared else body), 413, "BODY_TOO_LARGE")  # type: ignore[arg-type]
    return processor_milliseconds(stack) - before


def processor_milliseconds(stack: Stack) -> int:
    return int(processor_seconds(stack, "gateway") * 1000)


def test_a_bad_credential_is_refused_before_its_body_is_read(stack: Stack) -> None:
    """Three megabytes of JSON cost the gateway seconds; who has no credential sends none of them."""
    headers = {"X-API-Key": "bad", "content-length": str(3 << 20), "content-type": "application/json"}
    answer = call(stack, "POST", "/api-keys", headers)  # and not a byte of it
    assert answer.status in (401, 429)


@pytest.mark.row("S3.7")
def test_who_guesses_is_limited_by_address_and_others_there_are_not(stack: Stack, keys: Iterator[str]) -> None:
    key = {"X-API-Key": next(keys)}
    assert call(stack, "GET", "/api/v1/caller", key).status == 200
    found = [call(stack, "GET", "/api-keys", {"X-API-Key": f"guess {number}"}).status for number in range(LIMIT + 2)]
    assert 429 in found
    assert found == sorted(found), "401 until the bucket is empty, then 429"
    limited = call(stack, "GET", "/api-keys", {"X-API-Key": "one more guess"})
    assert_problem(limited, 429, "RATE_LIMITED")
    assert 1 <= int(limited.headers["retry-after"]) <= 450
    assert call(stack, "GET", "/api-keys").status == 429, "without a credential as well"
    assert call(stack, "GET", "/api/v1/caller", key).status == 200, "a key that was good lately works on"
    with grpc.insecure_channel(stack.target) as channel, pytest.raises(grpc.RpcError) as caught:
        tokens_pb2_grpc.TokenServiceStub(channel).GetCaller(tokens_pb2.GetCallerRequest(), timeout=10)
    assert_exhausted(caught.value)


def test_health_answers_while_a_stranger_floods_sign_in(stack: Stack) -> None:
    """The flood is limited by address, and what gets through has threads of its own."""

    def sign_in(_: int) -> int:
        return call(stack, "POST", SIGN_IN, {}, NOBODY).status

    with concurrent.futures.ThreadPoolExecutor(32) as strangers:
        flood = [strangers.submit(sign_in, number) for number in range(200)]
        took = []
        for _ in range(20):
            began = time.monotonic()
            assert call(stack, "GET", "/health").status == 200
            took.append(time.monotonic() - began)
    found = [future.result() for future in flood]
    assert set(found) <= {401, 429, 503}
    assert found.count(429) >= 200 - 2 * LIMIT
    assert max(took) < 5


@pytest.mark.parametrize(
    "method", ["/strongroom.auth.v1.SessionService/SignIn", "/strongroom.auth.v1.InfoService/GetInfo"]
)
def test_requests_that_never_end_do_not_keep_health_out(stack: Stack, method: str) -> None:
    """They wait in the gateway until they are whole, so they hold no thread of auth's."""
    with Idle(stack.target, method):
        for path in ("/health", "/"):
            assert call(stack, "GET", path).status == 200


def test_more_requests_than_a_service_takes_at_a_time_are_refused_with_a_reason(stack: Stack) -> None:
    """Watching a service's health is a request that does not end."""
    with grpc.insecure_channel(stack.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        watching = [watch(health_pb2.HealthCheckRequest(), timeout=30) for _ in range(STRANGERS[PROTOCOLS])]
        assert {next(answers).status for answers in watching} == {health_pb2.HealthCheckResponse.SERVING}
        with pytest.raises(grpc.RpcError) as caught:
            next(watch(health_pb2.HealthCheckRequest(), timeout=10))
        for answers in watching:
            answers.cancel()
    assert_told_to_wait(caught.value, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert caught.value.details().startswith("More requests are under way")
    assert call(stack, "GET", "/health").status == 200


def test_bulk_methods_exist() -> None:
    """A renamed method must not fall back to the small bucket in silence."""
    assert {method.name for method in Contract.load(gateway.DESCRIPTOR_SET).methods} >= BULK
    assert BULK_FACTOR == 60


@pytest.mark.parametrize("text", ["100", "0/minute", "1/day", "-1/minute", "1.5/second", "unlimited", "100/minute/x"])
def test_what_is_no_rate_is_refused_at_start(text: str) -> None:
    with pytest.raises(StartError, match="STRONGROOM_RATE_LIMIT"):
        Policy.read({"STRONGROOM_RATE_LIMIT": text})


def test_the_default_is_a_hundred_a_minute() -> None:
    assert Policy.read({}).rate == Policy.read({"STRONGROOM_RATE_LIMIT": ""}).rate == rates.Rate(100, 60)
    assert Policy.read({"STRONGROOM_RATE_LIMIT": "off"}).rate is None
    assert Policy.read({"STRONGROOM_RATE_LIMIT": "5/second"}).rate == rates.Rate(5, 1)


class Watch:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_of_guesses_fills_evenly() -> None:
    clock = Watch()
    guesses = Guesses(rates.Rate(4, 60), clock)
    attempt = Attempt("/m", api_key="bad", address="192.0.2.1")
    for _ in range(4):
        assert guesses.seconds_to_wait(attempt) == 0
        guesses.refused(attempt)
    assert guesses.seconds_to_wait(attempt) == pytest.approx(15)
    clock.now += 15.1
    assert guesses.seconds_to_wait(attempt) == 0
    guesses.refused(attempt)
    assert guesses.seconds_to_wait(attempt) > 0
    clock.now += 3600
    assert [_spend(guesses, attempt) for _ in range(5)] == [0, 0, 0, 0, pytest.approx(15)]


def _spend(guesses: Guesses, attempt: Attempt) -> float:
    wait = guesses.seconds_to_wait(attempt)
    guesses.refused(attempt)
    return wait


def test_guesses_count_by_network_of_ipv6_and_not_against_others() -> None:
    guesses = Guesses(rates.Rate(1, 60), Watch())
    guesses.refused(Attempt("/m", api_key="bad", address="2001:db8::1"))
    assert guesses.seconds_to_wait(Attempt("/m", api_key="bad", address="2001:db8::ffff")) > 0
    assert guesses.seconds_to_wait(Attempt("/m", api_key="bad", address="2001:db8:0:1::1")) == 0
    assert guesses.seconds_to_wait(Attempt("/m", api_key="bad", address="192.0.2.1")) == 0


def test_floods_from_everywhere_fill_no_memory() -> None:
    guesses = Guesses(rates.Rate(1, 60), Watch())
    for number in range(25_000):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        guesses.refused(Attempt("/m", api_key=f"bad {number}", address=address))
        guesses.admitted(Attempt("/m", api_key=f"good {number}", address=address))
    assert len(guesses._full_at) == len(guesses._good) == 10_000


def test_good_credentials_are_not_kept_in_clear() -> None:
    guesses = Guesses(rates.Rate(1, 60), Watch())
    guesses.admitted(Attempt("/m", api_key="a good key", address="192.0.2.1"))
    assert "a good key" not in repr(vars(guesses))
