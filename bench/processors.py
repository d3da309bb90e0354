"""CPU seconds of a stack and of the commands against it: on a shared machine they tell more than the clock."""

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from tests.stack import Stack


@dataclass
class Processors:
    """CPU seconds by part, `client` being the commands that were run; one entry a run."""

    stack: Stack
    spent: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts what is spent inside the block."""
        before = self._now()
        yield
        for part, seconds in self._now().items():
            self.spent.setdefault(part, []).append(seconds - before[part])

    def per_gib(self, size: int) -> str:
        """Medians a GiB: the sum, and the parts that count."""
        parts = {part: statistics.median(seconds) / (size / (1 << 30)) for part, seconds in self.spent.items()}
        shares = ", ".join(f"{part} {value:.2f}" for part, value in parts.items() if value >= 0.05)
        return f"{sum(parts.values()):.2f} s/GiB ({shares})"

    def _now(self) -> dict[str, float]:
        children = os.times()
        spent = {"client": children.children_user + children.children_system}
        for part, pid in self.stack.state["pids"].items():
            times = psutil.Process(pid).cpu_times()
            spent[part] = times.user + times.system
        return spent
