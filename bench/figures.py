"""Timings, and the table made of them."""

import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Samples:
    """Seconds that one piece of work took, run by run."""

    name: str
    seconds: list[float] = field(default_factory=list)

    @contextmanager
    def timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - started)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def spread(self) -> str:
        return f"{min(self.seconds):.2f}–{max(self.seconds):.2f}"

    def rate(self, size: int) -> str:
        """GiB a second at the median."""
        return f"{size / (1 << 30) / self.median:.2f} GiB/s"


@dataclass(frozen=True)
class Row:
    """One line of the results: what was measured, the figure, and the target it stands beside."""

    id: str
    work: str
    figure: str
    target: str
    met: bool | None

    @property
    def compared(self) -> bool:
        """Whether it has a figure, and a target to stand beside."""
        return self.met is not None

    def comparison(self) -> tuple[float, float, str]:
        """The figure, the target, and the unit of both."""
        bound = re.fullmatch(r"([≥≤]) ([\d.,]+) ?(\D.*)", self.target)
        value = bound and re.search(rf"([\d.,]+) ?{re.escape(bound[3])}", self.figure)
        if not bound or not value:
            raise ValueError(f"{self.id}: {self.figure!r} and {self.target!r} can't be compared")
        return _number(value[1]), _number(bound[2]), bound[3]

    def cells(self) -> list[str]:
        verdict = {True: "met", False: "**missed**", None: "—"}[self.met]
        return [self.id, self.work, self.figure, self.target, verdict]


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def alternate(runs: int, *works: Callable[[int], None]) -> None:
    """Runs every piece of work once a round, so that a slow minute of the machine hits all of them."""
    for run in range(runs):
        for work in works:
            work(run)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
