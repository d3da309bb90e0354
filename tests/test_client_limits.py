"""A client and the real limit of the gateway: it waits as long as it is told to, and everything gets through."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from strongroom import Client
from strongroom.retries import log
from tests.stack import RunningStack, Stack
from tests.terminal import Terminal

pytestmark = pytest.mark.row("S3.7")

LIMIT = 10


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Strongroom that lets each client make ten requests a second."""
    with RunningStack(tmp_path_factory.mktemp("limits") / "data", STRONGROOM_RATE_LIMIT=f"{LIMIT}/second") as stack:
        yield stack


def test_more_calls_than_the_limit_all_succeed(limited: Stack, caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    with caplog.at_level(logging.INFO, log.name), Client(limited.url, api_key=limited.admin_key) as client:
        for _call in range(3 * LIMIT):
            client.tokens.caller()
    assert time.monotonic() - began > 1
    assert any(message.startswith("too many requests, calling again in ") for message in caplog.messages)


def test_many_threads_share_the_limit(limited: Stack) -> None:
    with Client(limited.url, api_key=limited.admin_key) as client, ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _number: client.tokens.caller().name, range(3 * LIMIT)))
    assert made == ["administrator"] * (3 * LIMIT)


def test_what_changes_something_is_made_once(limited: Stack) -> None:
    with Client(limited.url, api_key=limited.admin_key) as client:
        for number in range(2 * LIMIT):
            client.keys.create(f"limited-{number}", permission_set="read_only")
        names = sorted(key.name for key in client.keys.list() if key.name.startswith("limited-"))
    assert names == sorted(f"limited-{number}" for number in range(2 * LIMIT))


def test_status_tells_how_many_requests_are_left(limited: Stack) -> None:
    strongroom = Terminal.of(limited)
    told = strongroom("status", "--json").json["rate_limit"]
    assert told["limit"].startswith(str(LIMIT))
    assert 0 <= int(told["remaining"]) < LIMIT
    assert f" of {LIMIT}" in strongroom("status").out
