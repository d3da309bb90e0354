"""Jobs: how soon a prediction starts that nobody has to wait for, and how many there are a second when many wait."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from bench.figures import Row
from strongroom import Client
from tests.stack import RunningStack, Stack

_MANY = 200
_COLUMNS, _ROWS = ["x", "y"], [[1, 2], [2, 4], [3, 6]]


def measure(folder: Path, runs: int) -> list[Row]:
    """A linear regression of three rows: what is measured is all around it. Through the gateway, by its client."""
    with RunningStack(folder / "jobs") as stack, Client(stack.url, api_key=stack.admin_key) as client:
        config = client.configs.create("bench", {})
        trained = client.ml.train(config.id, _COLUMNS, _ROWS)
        assert client.jobs.wait(trained.job_id).status == "completed"
        alone = [_one(client, trained.model_artifact_id) for _ in range(10 * runs)]
        rates = [_many(stack, trained.model_artifact_id) for _ in range(runs)]
    started, ended = (statistics.median(column) * 1000 for column in zip(*alone, strict=True))
    figure = f"{started:.0f} ms to its start, {ended:.0f} ms to its end"
    rate = f"{statistics.median(rates):.1f}/s ({min(rates):.1f}–{max(rates):.1f})"
    return [
        Row("J1", "a prediction, submitted alone", figure, "", None),
        Row("J2", f"{_MANY} predictions, submitted at once: ended", rate, "", None),
    ]


def _one(client: Client, model: str) -> tuple[float, float]:
    """Seconds from the job's row to its start and to its end, by the service's clock."""
    submitted = client.ml.predict(model, _COLUMNS[:1], [[4]])
    job = client.jobs.wait(submitted.job_id)
    created, started, ended = (
        datetime.fromisoformat(moment.ToJsonString()) for moment in (job.created_at, job.started_at, job.finished_at)
    )
    return (started - created).total_seconds(), (ended - created).total_seconds()


def _many(stack: Stack, model: str) -> float:
    """Jobs a second."""
    with Client(stack.url, api_key=stack.admin_key) as client, ThreadPoolExecutor(8) as pool:
        began = time.perf_counter()
        jobs = list(pool.map(lambda _: client.ml.predict(model, _COLUMNS[:1], [[4]]).job_id, range(_MANY)))
        for job_id in jobs:
            assert client.jobs.wait(job_id).status == "completed"
        return _MANY / (time.perf_counter() - began)
