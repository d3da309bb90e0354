"""P3: a folder of 200 files of 1 MiB up, and down again."""

import os
import shutil
from pathlib import Path

from bench import peers
from bench.figures import Row, Samples, alternate
from bench.ours import CommandLine
from bench.processors import Processors
from bench.transfer import random_file
from tests.stack import RunningStack

_FILES = 200
_SIZE = _FILES << 20
_FACTOR = 4.0


def measure(folder: Path, peers_folder: Path, runs: int) -> list[Row]:
    """Pushes and pulls a new folder `runs` times with us and with MLflow, in turn."""
    environment = peers.Environment(peers_folder)
    samples = {f"{who} {way}": Samples(who) for who in ("ours", "mlflow") for way in ("up", "down")}
    source, target = folder / "files", folder / "files-target"
    with (
        RunningStack(folder / "folders", STRONGROOM_RATE_LIMIT="off") as stack,
        peers.mlflow(environment, folder / "folders-mlflow") as mlflow,
    ):
        ours = CommandLine(stack)
        processors = {way: Processors(stack) for way in ("up", "down")}

        def prepare(_run: int) -> None:
            shutil.rmtree(source, ignore_errors=True)
            source.mkdir()
            for number in range(_FILES):
                random_file(source / f"{number:03}.bin", 1 << 20)
            os.sync()

        def run_ours(run: int) -> None:
            with samples["ours up"].timed(), processors["up"].counted():
                ours.push("folder", f"v{run}", source)
            with samples["ours down"].timed(), processors["down"].counted():
                ours.pull("folder", f"v{run}", target)
            _arrived(target)

        def run_mlflow(_run: int) -> None:
            identifier = mlflow.create_run()
            with samples["mlflow up"].timed():
                mlflow.upload_folder(identifier, source)
            with samples["mlflow down"].timed():
                mlflow.download(identifier, "", target)
            _arrived(target)
            shutil.rmtree(folder / "folders-mlflow" / "artifacts")

        alternate(runs, prepare, run_ours, run_mlflow)
    return [
        row
        for verb, way in (("push", "up"), ("pull", "down"))
        for row in _rows(verb, samples[f"ours {way}"], samples[f"mlflow {way}"], processors[way])
    ]


def _rows(verb: str, ours: Samples, mlflow: Samples, processors: Processors) -> list[Row]:
    ratio = mlflow.median / ours.median
    work = f"{verb} {_FILES} files of 1 MiB, beside mlflow at {mlflow.rate(_SIZE)}"
    figure = f"{ratio:.2f} × ({ours.rate(_SIZE)}, {ours.spread()} s)"
    return [
        Row("P3", work, figure, f"≥ {_FACTOR:g} ×", ratio >= _FACTOR),
        Row("P3", "CPU of all processes", processors.per_gib(_SIZE), "—", None),
    ]


def _arrived(target: Path) -> None:
    count = sum(1 for path in target.rglob("*.bin") if path.stat().st_size == 1 << 20)
    if count != _FILES:
        raise RuntimeError(f"{count} of {_FILES} files came down")
    shutil.rmtree(target)
