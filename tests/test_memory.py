"""A push and a pull of 2 GiB keep every process small: bytes stream, nothing holds a model in memory."""

import os
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from tests.stack import STRONGROOM, RunningStack, Stack

SIZE = 2 << 30
LIMIT = 400 << 20


class _Watch(threading.Thread):
    """Samples the resident memory of processes until stopped."""

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        super().__init__(daemon=True)
        self.processes = processes
        self.peaks = dict.fromkeys(processes, 0)
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            for name, process in list(self.processes.items()):
                try:
                    self.peaks[name] = max(self.peaks.get(name, 0), process.memory_info().rss)
                except psutil.NoSuchProcess:
                    del self.processes[name]


def _random_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))


def _run(watch: _Watch, stack: Stack, name: str, *arguments: str) -> None:
    environment = os.environ | {"STRONGROOM_URL": stack.url, "STRONGROOM_API_KEY": stack.admin_key}
    process = subprocess.Popen([STRONGROOM, *arguments], env=environment, stdout=subprocess.DEVNULL)
    watch.processes[name] = psutil.Process(process.pid)
    assert process.wait(timeout=170) == 0


@pytest.mark.slow
def test_two_gibibytes_keep_every_process_under_400_mib(tmp_path: Path) -> None:
    weights, pulled = tmp_path / "weights.bin", tmp_path / "pulled.bin"
    _random_file(weights, SIZE)
    with RunningStack(tmp_path / "data") as stack:
        parts = {name: psutil.Process(pid) for name, pid in stack.state["pids"].items()}
        watch = _Watch(parts)
        watch.start()
        _run(watch, stack, "push", "push", "big", str(weights), "--version", "v1")
        _run(watch, stack, "pull", "pull", "big@v1", str(pulled))
        watch.ended.set()
        watch.join()
    assert pulled.stat().st_size == SIZE
    assert {"models", "auth", "secrets", "push", "pull"} <= watch.peaks.keys()
    assert {name: peak >> 20 for name, peak in watch.peaks.items() if peak > LIMIT} == {}
