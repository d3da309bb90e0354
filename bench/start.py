"""P11: from `strongroom up` to the first 200."""

from pathlib import Path

from bench.figures import Row, Samples
from tests.stack import RunningStack


def measure(folder: Path, runs: int) -> list[Row]:
    """Starts an installation that has run before, `runs` times."""
    with RunningStack(folder / "warm"):
        pass
    samples = Samples("start")
    for _ in range(runs):
        running = RunningStack(folder / "warm")
        with samples.timed():
            running.start()
        running.stop()
    met = samples.median <= 4
    return [
        Row(
            "P11",
            "`strongroom up`, warm, to the first 200",
            f"{samples.median:.2f} s ({samples.spread()})",
            "≤ 4 s",
            met,
        )
    ]
