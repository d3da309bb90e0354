"""P1 and P2: one large random file up, and down again."""

import hashlib
import os
import shutil
from pathlib import Path

from bench import peers
from bench.figures import Row, Samples, alternate
from bench.ours import CommandLine
from bench.processors import Processors
from tests.stack import RunningStack

# performance.md, with the correction that through the gateway 1.5 times MLflow is asked, and directly 2 times.
_TARGETS = {
    ("P1", "direct"): {"mlflow": 2.0, "s5cmd": 4.0, "sha256": 0.5},
    ("P1", "gateway"): {"mlflow": 1.5, "sha256": 0.35},
    ("P2", "direct"): {"mlflow": 2.5, "s5cmd": 1.0},
    ("P2", "gateway"): {},
}
_WAYS = {"direct": "past the gateway, as the command line does here", "gateway": "through the gateway"}


def random_file(path: Path, size: int) -> None:
    """Writes `size` bytes, whole MiB, that nobody has seen before."""
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))


def measure(folder: Path, peers_folder: Path, size: int, runs: int) -> list[Row]:
    """Pushes and pulls a new random file of `size` bytes `runs` times with each contender, in turn."""
    environment = peers.Environment(peers_folder)
    contenders = (*_WAYS, "mlflow", "s5cmd")
    samples = {f"{name} {way}": Samples(name) for name in contenders for way in ("up", "down")}
    samples["sha256"] = Samples("sha256")
    source, target = folder / "source.bin", folder / "target.bin"
    with (
        RunningStack(folder / "strongroom", STRONGROOM_RATE_LIMIT="off") as stack,
        peers.mlflow(environment, folder / "mlflow") as mlflow,
        peers.s5cmd(environment, folder / "s3") as s5cmd,
    ):
        processors = {f"{way} {verb}": Processors(stack) for way in _WAYS for verb in ("up", "down")}

        def prepare(_run: int) -> None:
            random_file(source, size)
            with samples["sha256"].timed(), source.open("rb") as file:
                hashlib.file_digest(file, "sha256")
            os.sync()

        def run_ours(run: int) -> None:
            for way in _WAYS:
                ours = CommandLine(stack, direct=way == "direct")
                with samples[f"{way} up"].timed(), processors[f"{way} up"].counted():
                    ours.push("bench", f"{way}{run}", source)
                with samples[f"{way} down"].timed(), processors[f"{way} down"].counted():
                    ours.pull("bench", f"{way}{run}", target)
                _same_size(source, target)
                ours.remove("bench", f"{way}{run}")

        def run_mlflow(_run: int) -> None:
            identifier = mlflow.create_run()
            with samples["mlflow up"].timed():
                mlflow.upload(identifier, source)
            with samples["mlflow down"].timed():
                mlflow.download(identifier, source.name, folder / "mlflow-target")
            _same_size(source, folder / "mlflow-target" / source.name)
            shutil.rmtree(folder / "mlflow-target")
            shutil.rmtree(folder / "mlflow" / "artifacts")

        def run_s5cmd(run: int) -> None:
            with samples["s5cmd up"].timed():
                s5cmd.upload(source, f"file{run}")
            with samples["s5cmd down"].timed():
                s5cmd.download(f"file{run}", target)
            _same_size(source, target)
            s5cmd.delete(f"file{run}")

        alternate(runs, prepare, run_ours, run_mlflow, run_s5cmd)
    rows = []
    for (row, way), targets in _TARGETS.items():
        direction = "up" if row == "P1" else "down"
        rows += _rows(row, way, direction, samples, size, targets)
        figure = processors[f"{way} {direction}"].per_gib(size)
        rows.append(Row(row, "CPU of all processes", figure, "—", None))
    return rows


def _rows(
    row: str, way: str, direction: str, samples: dict[str, Samples], size: int, targets: dict[str, float]
) -> list[Row]:
    ours, gib = samples[f"{way} {direction}"], size / (1 << 30)
    verb = "push" if direction == "up" else "pull"
    where = _WAYS[way]
    rows = [Row(row, f"{verb} {gib:g} GiB {where}", f"{ours.rate(size)} ({ours.spread()} s)", "—", None)]
    for peer, factor in targets.items():
        other = samples[peer if peer == "sha256" else f"{peer} {direction}"]
        ratio = other.median / ours.median
        label = "single-thread SHA-256" if peer == "sha256" else peer
        work = f"{verb} {where.partition(',')[0]}, beside {label} at {other.rate(size)}"
        rows.append(Row(row, work, f"{ratio:.2f} ×", f"≥ {factor:g} ×", ratio >= factor))
    return rows


def _same_size(source: Path, target: Path) -> None:
    if source.stat().st_size != target.stat().st_size:
        raise RuntimeError(f"{target} is not what was uploaded")
    target.unlink()
