"""Many jobs on two services over PostgreSQL, whose processes are killed at random: each ends once, none is lost.

JOBS=1000 .venv/bin/python -m pytest --no-cov tests/test_job_races.py
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

from services.models import ml_tables as m
from services.models.bootstrap import _MIGRATIONS
from services.shared.database import Database
from tests.ml_jobs import ENDED, Ml, table, with_hostile_runner
from tests.test_jobs_lifecycle import jobs_processes

# The whole thousand took 158 s on two cores that were busy with other things too.
JOBS = int(os.environ.get("JOBS", "300"))
TRAININGS = JOBS // 20
ONE = table(["x"], [[1]])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.row("S1.3")
def test_many_jobs_end_once_each(tmp_path: Path, postgresql_url: str) -> None:
    with (
        with_hostile_runner(tmp_path, postgresql_url, job_slots=2) as made,
        made.models() as other,
        grpc.insecure_channel(other) as channel,
    ):
        ml, there = Ml(made), Ml(made, channel=channel)
        # A runner that imports nothing: what is shown is all around it.
        config_id = ml.config({"runner": "hostile"})
        first = ml.trained({"runner": "hostile"})
        assert first.status == "completed"

        def submit(number: int) -> str:
            service = ml if number % 2 else there
            if number < TRAININGS:
                return str(service.train(config_id).job_id)
            return str(service.predict(first.artifact_id, ONE).job_id)

        database = Database.open(postgresql_url, service="models", migrations=_MIGRATIONS)
        with killing() as killed:
            with ThreadPoolExecutor(8) as pool:
                submitted = list(pool.map(submit, range(JOBS)))
            wait_for_the_end(database, len(submitted) + 1)
        with database.read() as connection:
            ended = connection.execute(sa.select(m.jobs)).all()
            artifacts = Counter(connection.scalars(sa.select(m.ml_artifacts.c.job_id)))
        database.close()
    assert killed
    assert {job.id for job in ended} == {*submitted, first.id}
    assert all(job.sealed is None and job.holder is None for job in ended)
    completed = [job.id for job in ended if job.state == "completed"]
    assert artifacts == Counter(completed)
    # Whoever was not lucky was killed twice.
    unlucky = [job for job in ended if job.state != "completed"]
    assert all((job.state, job.reason, job.attempts) == ("failed", "WORKER_KILLED", 2) for job in unlucky)
    assert 2 * len(unlucky) <= len(killed)


@contextmanager
def killing() -> Iterator[list[int]]:
    """Kills a job's process now and then; yields those that it has killed."""
    stop, killed, chance = threading.Event(), list[int](), random.Random(7)

    def kill() -> None:
        while not stop.wait(chance.uniform(0.1, 0.5)):
            with suppress(ProcessLookupError, FileNotFoundError):
                if found := sorted(jobs_processes()):
                    victim = chance.choice(found)
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        stop.set()
        killer.join()


def wait_for_the_end(database: Database, count: int) -> None:
    deadline = time.monotonic() + 500
    query = sa.select(sa.func.count()).select_from(m.jobs).where(m.jobs.c.state.in_(ENDED))
    while True:
        with database.read() as connection:
            done = connection.scalar(query)
        if done == count:
            return
        assert time.monotonic() < deadline, f"{done} of {count} have ended"
        time.sleep(0.5)
