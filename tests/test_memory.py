"""A push and a pull of 2 GiB keep every process small: bytes stream, nothing holds a model in memory."""

import os
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from strongroom import Client
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


@pytest.mark.slow
def test_eight_forms_at_a_time_keep_the_service_within_its_budget(tmp_path: Path) -> None:
    """128 MiB of chunks for all uploads together, 8 MiB to cut each, and what messages take on their way."""
    file = tmp_path / "weights.bin"
    _random_file(file, 160 << 20)
    with RunningStack(tmp_path / "data") as stack:
        with Client(stack.url, api_key=stack.admin_key) as client:
            ids = [client.managers.create("regression") for _ in range(8)]
        models = psutil.Process(stack.state["pids"]["models"])
        before = models.memory_info().rss
        watch = _Watch({"models": models})
        watch.start()
        curl = ["curl", "-fsS", "-o", "/dev/null", "-H", f"X-API-Key: {stack.admin_key}", "-F", f"model_file=@{file}"]
        uploads = [subprocess.Popen([*curl, f"{stack.url}/api/managers/{id_}/upload-model"]) for id_ in ids]
        assert [upload.wait(timeout=170) for upload in uploads] == [0] * 8
        watch.ended.set()
        watch.join()
    assert (watch.peaks["models"] - before) >> 20 < 400
