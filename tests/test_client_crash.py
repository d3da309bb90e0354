"""A service that dies twice during a push and twice during a pull: the client goes on as soon as it is back."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from strongroom import Client
from tests.broken_line import BrokenLine, broken_line
from tests.stack import RunningStack, Stack

MIB = 1 << 20


@contextmanager
def dying(stack: Stack, line: BrokenLine, *after_bytes: int) -> Iterator[None]:
    """Kills the models service each time the line has carried so many bytes."""

    def kill() -> None:
        for carried in after_bytes:
            while line.carried < carried:
                time.sleep(0.005)
            victim = stack.state["pids"]["models"]
            os.kill(victim, signal.SIGKILL)
            while stack.state["pids"]["models"] == victim:
                time.sleep(0.02)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    yield
    thread.join(timeout=20)
    assert not thread.is_alive(), "the transfer was over before its time"


@pytest.mark.slow
def test_push_and_pull_outlive_the_service(tmp_path: Path) -> None:
    source, copy = tmp_path / "w.bin", tmp_path / "copy.bin"
    source.write_bytes(os.urandom(300 * MIB))
    with RunningStack(tmp_path / "data", STRONGROOM_RATE_LIMIT="off") as stack:
        with (
            broken_line(stack.target) as line,
            Client(line.url, api_key=stack.admin_key, direct=False) as client,
            dying(stack, line, 80 * MIB, 250 * MIB),
        ):
            client.models.push("survivor", source, version="v1")
        with (
            broken_line(stack.target) as line,
            Client(line.url, api_key=stack.admin_key, direct=False) as client,
            dying(stack, line, 80 * MIB, 200 * MIB),
        ):
            client.models.pull("survivor", copy)
            assert line.carried < 400 * MIB
    assert copy.read_bytes() == source.read_bytes()
