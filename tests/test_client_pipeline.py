"""Threads that hand over in order and pass on errors; attempts that go on while they advance."""

import threading
from collections.abc import Iterator

import pytest

from strongroom.errors import NotFound, Unavailable
from strongroom.persevere import ATTEMPTS, persevere
from strongroom.stage import Ahead, Stage


def test_a_stage_works_in_order() -> None:
    done: list[int] = []
    with Stage(done.append, waiting=2, name="test") as stage:
        for number in range(50):
            stage.put(number)
    assert done == list(range(50))


def test_a_stage_passes_its_error_on() -> None:
    def fail(_item: int) -> None:
        raise OSError("disk full")

    def put_many() -> None:
        with Stage(fail, waiting=1, name="test") as stage:
            for number in range(50):
                stage.put(number)

    with pytest.raises(OSError, match="disk full"):
        put_many()


def test_a_stage_error_is_not_hidden_by_another() -> None:
    def fail(_item: int) -> None:
        raise OSError("disk full")

    def put_and_break() -> None:
        with Stage(fail, waiting=5, name="test") as stage:
            stage.put(1)
            raise Unavailable("the stream broke")

    with pytest.raises(OSError, match="disk full"):
        put_and_break()


def test_iterating_ahead_keeps_order_and_error() -> None:
    def numbers() -> Iterator[int]:
        yield from range(20)
        raise OSError("cannot be read")

    taken: list[int] = []

    def take() -> None:
        with Ahead(numbers(), waiting=2, name="test") as ahead:
            taken.extend(ahead)

    with pytest.raises(OSError, match="cannot be read"):
        take()
    assert taken == [] or taken == list(range(20))


def test_leaving_off_ends_the_thread_that_is_ahead() -> None:
    before = threading.active_count()
    with Ahead(iter(range(1_000_000)), waiting=1, name="test") as ahead:
        assert next(iter(ahead)) == 0
    assert threading.active_count() == before


def test_attempts_end_that_get_nowhere() -> None:
    waits: list[float] = []

    def attempt() -> None:
        raise Unavailable("away")

    with pytest.raises(Unavailable):
        persevere(attempt, lambda: 0, sleep=waits.append)
    assert len(waits) == ATTEMPTS - 1
    assert waits[0] < waits[3] < waits[-1] <= 10


def test_attempts_go_on_while_they_advance() -> None:
    reached = 0

    def attempt() -> str:
        nonlocal reached
        reached += 1
        if reached < 5 * ATTEMPTS:
            raise Unavailable("away")
        return "done"

    assert persevere(attempt, lambda: reached, sleep=lambda _seconds: None) == "done"


def test_other_errors_are_not_repeated() -> None:
    calls = 0

    def attempt() -> None:
        nonlocal calls
        calls += 1
        raise NotFound("no such model")

    with pytest.raises(NotFound):
        persevere(attempt, lambda: 0, sleep=lambda _seconds: None)
    assert calls == 1
