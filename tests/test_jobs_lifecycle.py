"""Jobs through cancellation, lost workers and services, timeouts and revoked credentials: each ends once."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

from services.models import ml_tables as m
from services.models.bootstrap import _MIGRATIONS
from services.models.jobs.queue import COMPLETED, LEASE, LeaseLost, Outcome, Queue, QueueFull, Submission
from services.models.managers import DEFAULT_MANAGER
from services.shared.database import Database
from services.shared.identity import Principal
from services.shared.ids import new_id
from strongroom.auth.v1 import tokens_pb2, tokens_pb2_grpc
from strongroom.models.v1 import maintenance_pb2
from tests.ml_jobs import CASES, WEATHER, Ml, table, with_hostile_runner
from tests.models_installation import Installation, refused
from tests.mortal import mortal
from tests.postgresql import Server
from tests.serving import ADMINISTRATOR

pytestmark = pytest.mark.row("S1.3")
SLEEPER = {"runner": "hostile", "act": "sleep", "number": 60}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with with_hostile_runner(tmp_path_factory.mktemp("jobs"), job_slots=2) as made:
        yield made


@pytest.fixture
def ml(made: Installation) -> Ml:
    return Ml(made)


def running(ml: Ml, config_id: str = "") -> str:
    """A job whose process is at work."""
    submitted = ml.train(config_id or ml.config(SLEEPER))
    deadline = time.monotonic() + 60
    while ml.log(submitted.job_id) != ["sleeping"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return str(submitted.job_id)


def test_a_running_job_is_canceled_within_a_second(ml: Ml) -> None:
    job_id = running(ml)
    began = time.monotonic()
    ml.cancel(job_id)
    job = ml.wait(job_id)
    assert time.monotonic() < began + 1
    assert (job.status, job.result) == ("canceled", "Canceled")
    assert job.seconds > 0
    ml.cancel(job_id)
    with refused(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"):
        ml.job(job_id)


def test_a_pending_job_is_canceled_at_once(ml: Ml) -> None:
    at_work = [running(ml), running(ml)]
    waiting = ml.train(ml.config(SLEEPER)).job_id
    assert ml.job(waiting).status == "pending"
    ml.cancel(waiting)
    assert ml.job(waiting).status == "canceled"
    for job_id in at_work:
        ml.cancel(job_id)
        assert ml.wait(job_id).status == "canceled"


def children(of: int) -> set[int]:
    """Process ids of the processes that a process has made."""
    found = set()
    for task in Path(f"/proc/{of}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def jobs_processes() -> set[int]:
    """Those of all jobs of this process's services."""
    nurseries = {pid for pid in children(os.getpid()) if b"nursery" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    return {pid for nursery in nurseries for pid in children(nursery)}


def test_a_killed_process_is_tried_once_more_then_the_job_fails(ml: Ml) -> None:
    job_id = running(ml)
    [first] = jobs_processes()
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (second := jobs_processes() - {first}) == set():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(second.pop(), signal.SIGKILL)
    job = ml.wait(job_id)
    assert (job.status, job.reason, job.attempts) == ("failed", "WORKER_KILLED", 2)
    assert jobs_processes() == set()


def test_a_killed_nursery_is_replaced(ml: Ml) -> None:
    job_id = running(ml)
    for pid in children(os.getpid()):
        if b"nursery" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    assert ml.wait(job_id, "pending", "running").status in ("pending", "running")
    ml.cancel(job_id)
    assert ml.wait(job_id).status == "canceled"
    assert ml.trained({"runner": "hostile"}).status == "completed"


def test_what_waits_when_its_service_ends_is_taken_by_another(tmp_path: Path) -> None:
    with with_hostile_runner(tmp_path, job_slots=1) as made:
        ml = Ml(made)
        with made.models() as other, grpc.insecure_channel(other) as channel:
            there = Ml(made, channel=channel)
            jobs = [running(there, there.config({**SLEEPER, "number": 2})) for _ in range(2)]
        # The second service is gone: whichever of the jobs it had goes on with the first one.
        for job_id in jobs:
            job = ml.wait(job_id)
            assert (job.status, job.reason) == ("completed", "")


@pytest.mark.slow
def test_what_runs_when_its_service_is_killed_is_run_again(tmp_path: Path) -> None:
    with mortal(tmp_path, job_lease_seconds=5) as service:
        ml = Ml(service.installation, channel=service.channel)
        slow = {"estimator": "RandomForestRegressor", "parameters": {"n_estimators": 100}}
        job_id = ml.train(ml.config(slow), table(WEATHER, CASES)).job_id
        ml.wait(job_id, "running")
        service.kill()
        service.start()
        ml = Ml(service.installation, channel=service.channel)
        assert ml.job(job_id).status == "running"
        job = ml.wait(job_id, "completed", seconds=90)
        assert job.attempts == 2
        assert ml.data(job.artifact_id)["model_type"] == "sklearn.ensemble.RandomForestRegressor"


@pytest.mark.slow
def test_a_database_that_is_away_for_a_moment_fails_no_job(tmp_path: Path, postgresql_server: Server) -> None:
    url = postgresql_server.create_database()
    with with_hostile_runner(tmp_path, url, job_slots=1, job_lease_seconds=5) as made:
        ml = Ml(made)
        job_id = running(ml, ml.config({**SLEEPER, "number": 2}))
        with postgresql_server.away(url):
            time.sleep(1)  # several looks at whether the job is still wanted
        job = ml.wait(job_id, seconds=60)
        assert (job.status, job.reason) == ("completed", "")


def test_data_is_gone_when_the_job_ends_and_never_in_the_database(made: Installation, ml: Ml) -> None:
    secret = "planted-in-the-data"
    config_id = ml.config({"runner": "hostile", "target": "y"})
    submitted = ml.train(config_id, table(["x", "y"], [[secret, 1]]))
    assert ml.wait(submitted.job_id).status == "completed"
    predicted = ml.predict(submitted.model_artifact_id, table(["x"], [[secret]]))
    assert ml.wait(predicted.job_id).status == "completed"
    assert ml.data(predicted.prediction_artifact_id)["predictions"]["data"] == [[secret, "done"]]
    files = [file for file in made.folder.rglob("*") if file.is_file()]
    assert any(file.name.startswith("strongroom-models.db") for file in files)
    for file in files:
        assert secret.encode() not in file.read_bytes(), file
    with Database.open(
        f"sqlite:///{made.folder}/db/strongroom.db", service="models", migrations=_MIGRATIONS
    ).read() as c:
        sealed = c.execute(sa.select(m.jobs.c.sealed).where(m.jobs.c.id == submitted.job_id)).scalar()
    assert sealed is None


def test_collection_leaves_the_key_of_payloads(made: Installation, ml: Ml) -> None:
    job = ml.trained({"runner": "hostile"})
    made.admin.collect(0)
    made.clock.ahead += timedelta(minutes=5)  # and it is no longer remembered
    assert ml.data(job.artifact_id)["runner"] == "hostile"
    assert isinstance(made.admin.collect(0), maintenance_pb2.CollectGarbageResponse)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path}/strongroom.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    made = Database.open(url, service="models", migrations=_MIGRATIONS)
    with made.write() as connection:
        row = {"id": DEFAULT_MANAGER, "kek_id": "k", "domain_key_id": "d", "created_at": datetime.now(UTC)}
        connection.execute(sa.text("DELETE FROM managers"))
        connection.execute(sa.insert(m.METADATA.tables["managers"]).values(row))
    yield made
    made.close()


CALLER = Principal("key:1", "somebody", "1", "prefix")


def submit(queue: Queue, caller: Principal = CALLER) -> str:
    job = Submission(new_id(), DEFAULT_MANAGER, "train", "config", "", new_id(), b"sealed")
    return queue.submit(job, caller).id


@pytest.fixture
def now() -> list[datetime]:
    return [datetime.now(UTC)]


@pytest.fixture
def queue(database: Database, now: list[datetime]) -> Queue:
    return Queue(database, lambda: now[0])


def lost(now: list[datetime]) -> None:
    now[0] += LEASE + timedelta(seconds=1)


def test_nobody_fills_the_queue_alone(database: Database, now: list[datetime]) -> None:
    queue = Queue(database, lambda: now[0], most_pending=4)
    submit(queue)
    submit(queue)
    with pytest.raises(QueueFull, match="2 of your jobs"):
        submit(queue)
    for name in ("key:2", "key:3"):
        submit(queue, replace(CALLER, id=name))
    with pytest.raises(QueueFull, match="4 jobs"):
        submit(queue, replace(CALLER, id="key:4"))
    assert queue.claim("a") is not None
    submit(queue)  # the one that is at work waits no more


def test_jobs_are_claimed_in_order_and_by_one(queue: Queue) -> None:
    first, second = submit(queue), submit(queue)
    claims = [queue.claim(holder) for holder in "abc"]
    assert [claim.job.id if claim else None for claim in claims] == [first, second, None]


def test_who_has_lost_the_lease_ends_nothing(queue: Queue, now: list[datetime]) -> None:
    job_id = submit(queue)
    slow = queue.claim("slow")
    assert slow is not None
    lost(now)
    quick = queue.claim("quick")
    assert quick is not None
    assert (quick.job.id, quick.job.attempts) == (job_id, 2)
    attempts: list[Callable[[], object]] = [
        lambda: queue.renew(slow, 0.5, ["late"]),
        lambda: queue.check(slow),
        lambda: queue.end(slow, Outcome(COMPLETED, "late"), 1, 0.0),
        lambda: queue.give_back(slow, 1, 0.0, crashed=True),
    ]
    for attempt in attempts:
        with pytest.raises(LeaseLost):
            attempt()
    assert not queue.wanted(slow)
    assert queue.end(quick, Outcome(COMPLETED, "done"), 1, 0.5).result == "done"
    with pytest.raises(LeaseLost):
        queue.end(quick, Outcome(COMPLETED, "again"), 1, 0.5)


def test_what_a_job_made_is_there_with_its_end_or_not_at_all(queue: Queue) -> None:
    submit(queue)
    claim = queue.claim("a")
    assert claim is not None

    def fails(_: object) -> None:
        raise ValueError("not stored")

    with pytest.raises(ValueError, match="not stored"):
        queue.end(claim, Outcome(COMPLETED, "done"), 1, 0.0, within=fails)
    assert queue.get(claim.job.id).state == "running"


def test_a_job_whose_services_are_lost_again_and_again_fails(queue: Queue, now: list[datetime]) -> None:
    job_id = submit(queue)
    for attempt in range(5):
        claim = queue.claim(str(attempt))
        assert claim is not None
        lost(now)
    assert queue.claim("last") is None
    job = queue.get(job_id)
    assert (job.state, job.reason) == ("failed", "WORKER_LOST")


def test_an_orderly_end_costs_no_attempt(queue: Queue) -> None:
    job_id = submit(queue)
    for attempt in range(10):
        claim = queue.claim(str(attempt))
        assert claim is not None
        assert claim.job.attempts == 1
        queue.give_back(claim, 1, 0.0, crashed=False)
    assert queue.get(job_id).state == "pending"
    assert queue.get(job_id).milliseconds == 10


def test_what_a_canceled_job_has_cost_is_kept(queue: Queue) -> None:
    """One that was given back runs no more, and waits as if it never had."""
    job_id = submit(queue)
    claim = queue.claim("a")
    assert claim is not None
    queue.give_back(claim, 1500, 0.25, crashed=True)
    queue.cancel_or_delete(job_id)
    job = queue.get(job_id)
    assert (job.state, job.milliseconds, job.cost) == ("canceled", 1500, 0.25)


def test_one_that_was_to_be_canceled_is_whoever_loses_it(queue: Queue, now: list[datetime]) -> None:
    job_id = submit(queue)
    claim = queue.claim("a")
    assert claim is not None
    queue.cancel_or_delete(job_id)
    assert queue.get(job_id).state == "canceling"
    with pytest.raises(LeaseLost):
        queue.renew(claim, 0.1, [])
    lost(now)
    assert queue.claim("b") is None
    assert queue.get(job_id).state == "canceled"


def test_of_a_long_log_the_last_thousand_lines_are_kept(queue: Queue) -> None:
    job_id = submit(queue)
    claim = queue.claim("a")
    assert claim is not None
    for start in range(0, 1500, 300):
        queue.renew(claim, 0.0, [f"line {number}" for number in range(start, start + 300)])
    lines = queue.lines(job_id)
    assert (len(lines), lines[0].number, lines[-1].text) == (1000, 501, "line 1499")
    assert [line.number for line in queue.lines(job_id, 1498)] == [1499, 1500]


class RevokedLongAgo(tokens_pb2_grpc.TokenServiceServicer):
    """Stands for auth: what it is asked about the last minutes knows nothing of an hour ago."""

    def __init__(self, credential: str, moment: datetime) -> None:
        self._credential = credential
        self._moment = moment

    def ListRevocations(
        self, request: tokens_pb2.ListRevocationsRequest, _context: grpc.ServicerContext
    ) -> tokens_pb2.ListRevocationsResponse:
        since = request.since.ToDatetime(UTC)
        return tokens_pb2.ListRevocationsResponse(credential_ids=[self._credential] if since <= self._moment else [])


def test_a_job_that_waited_long_has_lost_the_credential_that_was_revoked_meanwhile(tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(4))
    revoked = RevokedLongAgo("key:lost", datetime.now(UTC) - timedelta(hours=1))
    tokens_pb2_grpc.add_TokenServiceServicer_to_server(revoked, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with with_hostile_runner(tmp_path, job_slots=1, auth_addr=address) as made:
            loser, keeper = (Ml(made, replace(ADMINISTRATOR, credential_id=f"key:{name}")) for name in ("lost", "kept"))
            config_id = keeper.config({"runner": "hostile"})
            made.clock.ahead = -timedelta(hours=2)  # when they were submitted
            lost, kept = loser.train(config_id), keeper.train(config_id)
            job = loser.wait(lost.job_id)
            assert (job.status, job.reason) == ("failed", "CREDENTIAL_REVOKED")
            assert keeper.wait(kept.job_id).status == "completed"
            server.stop(None).wait()
            waits = keeper.train(config_id).job_id
            time.sleep(1.5)
            # Nobody knows whether it may run: it waits until auth says so.
            assert keeper.job(waits).status in ("pending", "running")
            keeper.cancel(waits)
    finally:
        server.stop(None)
