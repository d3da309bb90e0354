"""P1 and P2: one large random file up, and down again."""

import hashlib
import os
import shutil
from pathlib import Path

from bench import peers
from bench.figures import Row, Samples, alternate
from bench.ours import CommandLine
from tests.stack import RunningStack


def measure(folder: Path, peers_folder: Path, size: int, runs: int) -> list[Row]:
    """Pushes and pulls a new random file of `size` bytes `runs` times with each contender, in turn."""
    environment = peers.Environment(peers_folder)
    names = ("ours up", "ours down", "mlflow up", "mlflow down", "s5cmd up", "s5cmd down", "sha256")
    samples = {name: Samples(name) for name in names}
    source, target = folder / "source.bin", folder / "target.bin"
    with (
        RunningStack(folder / "strongroom", STRONGROOM_RATE_LIMIT="off") as stack,
        peers.mlflow(environment, folder / "mlflow") as mlflow,
        peers.s5cmd(environment, folder / "s3") as s5cmd,
    ):
        ours = CommandLine(stack)

        def prepare(_run: int) -> None:
            with source.open("wb") as file:
                for _ in range(size >> 20):
                    file.write(os.urandom(1 << 20))
            with samples["sha256"].timed(), source.open("rb") as file:
                hashlib.file_digest(file, "sha256")
            os.sync()

        def run_ours(run: int) -> None:
            with samples["ours up"].timed():
                ours.push("bench", f"v{run}", source)
            with samples["ours down"].timed():
                ours.pull("bench", f"v{run}", target)
            _same_size(source, target)
            ours.remove("bench", f"v{run}")

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
    return [*_rows("P1", "push", "up", samples, size), *_rows("P2", "pull", "down", samples, size)]


def _rows(row: str, verb: str, direction: str, samples: dict[str, Samples], size: int) -> list[Row]:
    ours, gib = samples[f"ours {direction}"], size / (1 << 30)
    # performance.md, with the correction that through the gateway 1.5 times MLflow is asked.
    targets = {"P1": {"mlflow": 1.5, "s5cmd": 4.0, "sha256": 0.35}, "P2": {"mlflow": 2.5, "s5cmd": 1.0}}[row]
    rows = [Row(row, f"{verb} {gib:g} GiB through the gateway", f"{ours.rate(size)} ({ours.spread()} s)", "—", None)]
    for peer, factor in targets.items():
        other = samples[peer if peer == "sha256" else f"{peer} {direction}"]
        ratio = other.median / ours.median
        label = "single-thread SHA-256" if peer == "sha256" else peer
        work = f"{verb}, beside {label} at {other.rate(size)}"
        rows.append(Row(row, work, f"{ratio:.2f} ×", f"≥ {factor:g} ×", ratio >= factor))
    return rows


def _same_size(source: Path, target: Path) -> None:
    if source.stat().st_size != target.stat().st_size:
        raise RuntimeError(f"{target} is not what was uploaded")
    target.unlink()
