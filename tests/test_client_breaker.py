"""The circuit breaker: a server that is not there is left alone for a while, and one call finds out when it is back."""

import threading
import time

import pytest

from strongroom.breaker import FAILURES, REST, Breaker
from strongroom.client.keys import Keys
from strongroom.connection import Connection
from strongroom.errors import CircuitOpen, NotFound, StrongroomError, Unavailable
from strongroom.retries import Retries
from tests.broken_line import broken_line
from tests.stack import Stack

pytestmark = pytest.mark.row("S3.7")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock=clock)


def fail(breaker: Breaker, error: BaseException | None = None, *, times: int = 1) -> None:
    for _call in range(times):
        failure = error or Unavailable("nobody there")
        with pytest.raises(type(failure)), breaker.guarding():
            raise failure


def succeed(breaker: Breaker) -> None:
    with breaker.guarding():
        pass


def test_it_opens_after_so_many_failures_in_a_row_and_says_when_it_tries_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, times=FAILURES - 1)
    succeed(breaker)
    fail(breaker, times=FAILURES)
    clock.now += 3
    with pytest.raises(CircuitOpen) as caught, breaker.guarding():
        pytest.fail("the call was made")
    assert caught.value.retry_after == REST - 3
    assert caught.value.message == "5 calls in a row did not reach Strongroom. The next is made in 7 s."


def test_the_call_after_the_rest_decides(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, times=FAILURES)
    clock.now += REST
    fail(breaker)
    with pytest.raises(CircuitOpen), breaker.guarding():
        pytest.fail("the call was made")
    clock.now += REST
    succeed(breaker)
    fail(breaker, times=FAILURES - 1)
    succeed(breaker)


def test_of_many_threads_one_tries(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, times=FAILURES)
    clock.now += REST
    begin, end = threading.Barrier(20), threading.Event()
    made: list[int] = []
    refused: list[int] = []

    def call(number: int) -> None:
        begin.wait()
        try:
            with breaker.guarding():
                made.append(number)
                end.wait(10)
        except CircuitOpen:
            refused.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(refused) < 19 and time.monotonic() < deadline:
        time.sleep(0.01)
    end.set()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 19)
    succeed(breaker)


@pytest.mark.parametrize(
    "error", [NotFound("no such key"), Unavailable("Not ready.", reason="STARTING")], ids=["not found", "not ready"]
)
def test_an_error_that_the_server_gives_is_an_answer(breaker: Breaker, error: StrongroomError) -> None:
    fail(breaker, times=FAILURES - 1)
    fail(breaker, error)
    fail(breaker, times=FAILURES - 1)
    succeed(breaker)


def test_an_interrupted_probe_leaves_its_place_to_the_next(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, times=FAILURES)
    clock.now += REST
    fail(breaker, KeyboardInterrupt())
    succeed(breaker)


def test_a_call_from_before_does_not_close_it(breaker: Breaker) -> None:
    early = breaker.guarding()
    early.__enter__()
    fail(breaker, times=FAILURES)
    early.__exit__(None, None, None)
    with pytest.raises(CircuitOpen), breaker.guarding():
        pytest.fail("the call was made")


def test_a_client_is_refused_at_once_while_nobody_is_there_and_served_when_somebody_is(stack: Stack) -> None:
    with broken_line(stack.target) as line:
        line.down = True
        retries, breaker = Retries(sleep=lambda _seconds: None), Breaker(rest=1)
        connection = Connection(line.url, api_key=stack.admin_key, retries=retries, breaker=breaker, direct=False)
        keys = Keys(connection)
        for _call in range(FAILURES):
            with pytest.raises(Unavailable) as caught:
                keys.sets()
            assert not isinstance(caught.value, CircuitOpen)
        line.down = False
        began = time.monotonic()
        with pytest.raises(CircuitOpen, match=r"The next is made in 1 s\."):
            keys.sets()
        assert time.monotonic() - began < 0.5
        assert _served_within(10, keys)
        connection.close()


def _served_within(seconds: float, keys: Keys) -> bool:
    """The channel itself waits too before it connects again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            return bool(keys.sets())
        except Unavailable:
            time.sleep(0.2)
    return False
