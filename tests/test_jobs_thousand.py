"""A thousand jobs on two services over PostgreSQL, whose processes are killed at random: each ends once, none is
lost."""

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

from services.models import ml_tables as m
from services.models.bootstrap import _MIGRATIONS
from services.shared.database import Database
from tests.ml_jobs import ENDED, Ml, table, with_hostile_runner
from tests.test_jobs_lifecycle import jobs_processes

JOBS, TRAININGS = 1000, 50
ONE = table(["x"], [[1]])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.row("S1.3")
def test_a_thousand_jobs_end_once_each(tmp_path: Path, postgresql_url: str) -> None:
    with (
        with_hostile_runner(tmp_path, postgresql_url, job_slots=2) as made,
        made.models() as other,
        grpc.insecure_channel(other) as channel,
    ):
        ml, there = Ml(made), Ml(made, channel=channel)
        config_id = ml.config({"runner": "hostile"})
        first = ml.trained({"runner": "hostile"})
        assert first.status == "completed"
        stop, killed = threading.Event(), []

        def kill() -> None:
            chance = random.Random(7)
            while not stop.wait(chance.uniform(0.1, 0.5)):
                with suppress(ProcessLookupError, FileNotFoundError):
                    if found := sorted(jobs_processes()):
                        victim = chance.choice(found)
                        os.kill(victim, signal.SIGKILL)
                        killed.append(victim)

        def submit(number: int) -> str:
            service = ml if number % 2 else there
            if number < TRAININGS:
                return str(service.train(config_id).job_id)
            return str(service.predict(first.artifact_id, ONE).job_id)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with ThreadPoolExecutor(8) as pool:
                submitted = list(pool.map(submit, range(JOBS)))
            database = Database.open(postgresql_url, service="models", migrations=_MIGRATIONS)
            wait_for_the_end(database, len(submitted) + 1)
        finally:
            stop.set()
            killer.join()
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
