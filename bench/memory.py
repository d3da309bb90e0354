"""P10: memory of the services while eight clients push at once."""

import shutil
import time
from pathlib import Path

import psutil

from bench.figures import Row
from bench.ours import CommandLine
from bench.transfer import random_file
from tests.stack import RunningStack

_CLIENTS = 8
_LIMIT = 400 << 20


def measure(folder: Path, sizes: list[int]) -> list[Row]:
    """Eight pushes side by side of files of each size, with a new installation for each."""
    return [_measure(folder / f"memory-{size >> 20}", size) for size in sizes]


def _measure(folder: Path, size: int) -> Row:
    folder.mkdir()
    sources = [folder / f"{number}.bin" for number in range(_CLIENTS)]
    for source in sources:
        random_file(source, size)
    with RunningStack(folder / "strongroom", STRONGROOM_RATE_LIMIT="off") as stack:
        ours = CommandLine(stack)
        peaks: dict[str, int] = {}
        pushes = [ours.start_push("memory", source.stem, source) for source in sources]
        while any(push.poll() is None for push in pushes):
            for part, pid in stack.state["pids"].items():
                peaks[part] = max(peaks.get(part, 0), psutil.Process(pid).memory_info().rss)
            time.sleep(0.05)
        if any(push.returncode for push in pushes):
            raise RuntimeError("a push failed")
    shutil.rmtree(folder)
    part, peak = max(peaks.items(), key=lambda item: item[1])
    work = f"largest service ({part}) while {_CLIENTS} clients push {size / (1 << 30):g} GiB each"
    return Row("P10", work, f"{peak >> 20} MiB", f"≤ {_LIMIT >> 20} MiB", peak <= _LIMIT)
