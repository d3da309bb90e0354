"""Jobs: how soon a prediction starts that nobody has to wait for, how many there are a second when many wait, and how
long a table of a million rows takes that is named instead of sent."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.figures import Row
from strongroom import Client
from strongroom.models.v1.jobs_pb2 import Job
from tests.stack import RunningStack, Stack

_MANY = 200
_COLUMNS, _ROWS = ["x", "y"], [[1, 2], [2, 4], [3, 6]]
_LARGE, _WIDTH = 1_000_000, 10


def measure(folder: Path, runs: int) -> list[Row]:
    """A linear regression of three rows: what is measured is all around it. Through the gateway, by its client."""
    with RunningStack(folder / "jobs") as stack, Client(stack.url, api_key=stack.admin_key) as client:
        config = client.configs.create("bench", {})
        trained = client.ml.train(config.id, _COLUMNS, _ROWS)
        assert client.jobs.wait(trained.job_id).status == "completed"
        alone = [_one(client, trained.model_artifact_id) for _ in range(10 * runs)]
        rates = [_many(stack, trained.model_artifact_id) for _ in range(runs)]
        large = [_large(client, folder, config.id, run) for run in range(runs)]
    started, ended = (statistics.median(column) * 1000 for column in zip(*alone, strict=True))
    figure = f"{started:.0f} ms to its start, {ended:.0f} ms to its end"
    rate = f"{statistics.median(rates):.1f}/s ({min(rates):.1f}–{max(rates):.1f})"
    pushed, fitted, predicted = (statistics.median(column) for column in zip(*large, strict=True))
    table = f"pushed {pushed:.1f} s, trained {fitted:.1f} s, predicted into a file {predicted:.1f} s"
    return [
        Row("J1", "a prediction, submitted alone", figure, "", None),
        Row("J2", f"{_MANY} predictions, submitted at once: ended", rate, "", None),
        Row("J3", f"Parquet by reference, {_LARGE:,} rows of {_WIDTH} features", table, "", None),
    ]


def _one(client: Client, model: str) -> tuple[float, float]:
    """Seconds from the job's row to its start and to its end, by the service's clock."""
    job = client.jobs.wait(client.ml.predict(model, _COLUMNS[:1], [[4]]).job_id)
    created, started, ended = _moments(job)
    return (started - created).total_seconds(), (ended - created).total_seconds()


def _many(stack: Stack, model: str) -> float:
    """Jobs a second, from the first one's row to the last one's end by the service's clock."""
    with Client(stack.url, api_key=stack.admin_key) as client, ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: client.ml.predict(model, _COLUMNS[:1], [[4]]).job_id, range(_MANY)))
        jobs = [client.jobs.wait(job_id) for job_id in ids]
    assert {job.status for job in jobs} == {"completed"}
    created, _, ended = zip(*map(_moments, jobs), strict=True)
    return _MANY / (max(ended) - min(created)).total_seconds()


def _large(client: Client, folder: Path, config_id: str, run: int) -> tuple[float, float, float]:
    """Seconds of a push, a training and a prediction; another table each time, for none is sent twice."""
    values = np.random.default_rng(run).normal(size=(_WIDTH, _LARGE))
    columns = {f"x{number}": column for number, column in enumerate(values)}
    file = folder / "large.parquet"
    pq.write_table(pa.table(columns | {"y": values.sum(axis=0)}), file)
    began = time.perf_counter()
    version = client.models.push("large", file).version.version
    pushed = time.perf_counter() - began
    trained = client.jobs.wait(client.ml.train(config_id, url=f"strongroom://default/large/{version}").job_id)
    pq.write_table(pa.table(columns), file)
    version = client.models.push("large", file).version.version
    url, output = f"strongroom://default/large/{version}", "strongroom://default/forecasts"
    predicted = client.jobs.wait(client.ml.predict(trained.artifact_id, url=url, output=output).job_id)
    assert (trained.status, predicted.status) == ("completed", "completed"), (trained, predicted)
    return pushed, *((_moments(job)[2] - _moments(job)[0]).total_seconds() for job in (trained, predicted))


def _moments(job: Job) -> tuple[datetime, datetime, datetime]:
    """When it was created, started and ended."""
    first, second, third = (
        datetime.fromisoformat(moment.ToJsonString()) for moment in (job.created_at, job.started_at, job.finished_at)
    )
    return first, second, third
