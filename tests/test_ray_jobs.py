"""Jobs on a Ray cluster of one node: the same runners, answers, limits and ends as on the service's own machine.

RAY=1 .venv/bin/python -m pytest --no-cov tests/test_ray_jobs.py
"""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strongroom.models.v1 import ml_pb2
from tests.ml_jobs import CASES, WEATHER, Ml, table, with_hostile_runner
from tests.models_installation import Installation
from tests.stack import free_port

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        "RAY" not in os.environ, reason="a Ray cluster takes a minute and listens to all: RAY=1 runs it"
    ),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder, port = tmp_path_factory.mktemp("jobs"), free_port()
    # Short: Ray's sockets lie below it.
    session = Path(tmp_path_factory.mktemp("r", numbered=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", os.urandom(32).hex())
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Seconds: on a machine that does other things as well.
        patch.setenv("RAY_raylet_start_wait_time_s", "240")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parents[1])]))
        ray = Path(sys.executable).with_name("ray")
        command = [ray, "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=false"]
        command += [f"--port={port}", "--node-ip-address=127.0.0.1", "--object-store-memory=100000000"]
        with subprocess.Popen([*command, f"--temp-dir={session}"], stdout=subprocess.DEVNULL) as cluster:
            try:
                until((session / "session_latest" / "sockets" / "raylet").exists)
                options = {"ray_address": f"127.0.0.1:{port}", "job_memory_mb": 2048, "job_slots": 2}
                with with_hostile_runner(folder, **options) as made:
                    yield made
            finally:
                # Before its node goes: Ray ends a process that loses it.
                import_module("ray").shutdown()
                end(psutil.Process(cluster.pid))


def end(process: psutil.Process) -> None:
    """Ends a process with all below it."""
    for one in [*process.children(recursive=True), process]:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue


@pytest.fixture
def ml(made: Installation) -> Ml:
    return Ml(made)


def actors() -> list[psutil.Process]:
    """Those that have borne a job's process."""
    found = (process for process in psutil.process_iter() if "runners.nursery" in " ".join(command_line(process)))
    return [parent for nursery in found if (parent := nursery.parent()) and "ray::" in " ".join(command_line(parent))]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def sleeping(ml: Ml) -> str:
    job_id = str(ml.train(ml.config({"runner": "hostile", "act": "sleep", "number": 60})).job_id)
    until(lambda: ml.log(job_id)[-1:] == ["sleeping"])
    return job_id


def test_predictions_are_those_of_this_machine(ml: Ml) -> None:
    job = ml.wait(ml.train(ml.config({"target": "disease_cases"}), table(WEATHER, CASES)).job_id, seconds=300)
    assert job.status == "completed", job
    assert actors()
    rows = [[110.0, 26.0], [90.0, 28.0], [125.0, 24.0], [80.0, 29.0]]
    predicted = ml.predicted(job.artifact_id, WEATHER[:2], rows)
    assert [round(value, 3) for value in predicted[:2]] == [13.046, 8.629]


def test_tables_by_reference_reach_the_cluster(made: Installation, ml: Ml) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"x": [1.0, 2.0, 3.0], "y": [2.0, 4.0, 6.0]}), file)
    made.admin.put("line", "x.parquet", [file.getvalue()], model="datasets")
    job = ml.trained({}, ml_pb2.Table(url="strongroom://default/datasets/line"))
    assert job.status == "completed", job
    request = ml_pb2.PredictRequest(
        model_artifact_id=job.artifact_id, future=table(["x"], [[4]]), output="strongroom://default/forecasts"
    )
    submitted = ml.call(ml.ml.Predict, request)
    assert ml.wait(submitted.job_id).status == "completed"
    stored = made.admin.read(submitted.prediction_artifact_id, "predictions.parquet", "forecasts")
    assert pq.read_table(io.BytesIO(stored))["sample_0"].to_pylist() == pytest.approx([8])


def test_a_job_is_shut_in_there_as_here(made: Installation, ml: Ml) -> None:
    secret = made.folder / "root.key"
    for act in ({"act": "read", "at": str(secret)}, {"act": "fork"}, {"act": "connect", "number": 1}):
        job = ml.trained({"runner": "hostile", **act})
        assert job.status == "completed", job
        assert "refused" in " ".join(ml.log(job.id))
    job = ml.trained({"runner": "hostile", "act": "environment"})
    assert job.status == "completed"
    assert ml.predicted(job.artifact_id, ["x"], [[1]])[0].count("RAY") == 0


def test_a_running_job_is_canceled(ml: Ml) -> None:
    job_id = sleeping(ml)
    began = time.monotonic()
    ml.cancel(job_id)
    assert ml.wait(job_id).status == "canceled"
    assert time.monotonic() < began + 2


def test_a_job_whose_actor_is_killed_is_tried_once_more(ml: Ml) -> None:
    job_id = sleeping(ml)
    for actor in actors():
        actor.kill()
    until(lambda: ml.job(job_id).attempts == 2)
    until(lambda: ml.log(job_id).count("sleeping") == 2)
    for actor in actors():
        actor.kill()
    job = ml.wait(job_id)
    assert (job.status, job.reason) == ("failed", "WORKER_KILLED")
