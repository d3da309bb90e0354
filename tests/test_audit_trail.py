"""The audit log in its database: written in groups, durable, verified against heads outside of it, through crashes."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.secrets.tables import audit_events
from services.shared.audit import chain
from services.shared.audit.event import CLOSED, OPENED, Event
from services.shared.audit.intents import Intent
from services.shared.audit.log import Filter
from services.shared.audit.trail import Trail
from services.shared.audit.writer import AuditUnavailable
from services.shared.database import Database
from tests.audit_trails import SERVICE, Place

# Refuses every insert from within the database, as a full disk would.
FULL = "CREATE TRIGGER full BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'full'); END"


def call(number: int = 0, **fields: str) -> Event:
    return Event("call", principal=f"key:{number}", method="a.B/C", code="OK", **fields)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(tmp_path)
    return Place(tmp_path, request.getfixturevalue("postgresql_server").create_database())


@pytest.fixture
def local(tmp_path: Path) -> Place:
    return Place(tmp_path)


def kinds(place: Place) -> list[str]:
    return [kind for (kind,) in place.sql("SELECT kind FROM audit_events ORDER BY id")]


@pytest.mark.row("S1.9")
def test_a_chain_begins_with_its_process_and_ends_with_it(place: Place) -> None:
    with place.started() as trail:
        trail.record(call())
        [report] = trail.verify()
        assert (report.events, report.is_closed, report.problems) == (2, False, [])
    assert kinds(place) == [OPENED, "call", CLOSED]
    with place.started() as trail:
        first, second = trail.verify()
    assert (first.events, first.is_closed, second.is_closed) == (3, True, False)
    assert first.heads >= 2, "one at the start, one at the end"
    assert place.problems() == []


def test_heads_are_private_and_in_the_log_as_well(local: Place) -> None:
    with local.started() as trail:
        trail.record(call())
    assert local.heads.stat().st_mode & 0o777 == 0o600
    assert local.heads.parent.stat().st_mode & 0o777 == 0o700
    lines = [json.loads(line) for line in local.heads.read_text().splitlines()]
    assert [line["is_final"] for line in lines] == [False, True]
    assert {line["service"] for line in lines} == {SERVICE}
    assert list(local.heads.parent.glob("*.alive")) == []


def test_many_callers_share_a_transaction(place: Place) -> None:
    with place.started() as trail:
        commits = 0

        def count(_connection: Connection) -> None:
            nonlocal commits
            commits += 1

        sa.event.listen(trail_engine(trail), "commit", count)
        barrier = threading.Barrier(32)

        def work(number: int) -> None:
            barrier.wait()
            for _ in range(10):
                trail.record(call(number))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sa.event.remove(trail_engine(trail), "commit", count)
        [report] = trail.verify()
        assert report.events == 321
        assert not report.problems
        assert commits <= 120, "320 events of 32 callers"


def trail_engine(trail: Trail) -> sa.Engine:
    return trail._writer._database.engine


def test_an_event_is_durable_when_record_returns(place: Place) -> None:
    """kill -9 right behind it."""
    script = (
        "import os, sys, signal; from pathlib import Path; from tests.audit_trails import Place;"
        "from tests.test_audit_trail import call; place = Place(Path(sys.argv[1]), sys.argv[2]);"
        "trail = place.trail(place.open()); trail.start();"
        "[trail.record(call(number)) for number in range(5)]; os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", script, str(place.folder), place.url]
    assert subprocess.run(command, check=False, timeout=60, stdout=subprocess.DEVNULL).returncode == -9
    assert kinds(place) == [OPENED, *["call"] * 5]
    assert place.problems() == []
    with place.started() as trail:
        crashed = trail.verify()[0]
        assert (crashed.events, crashed.is_closed, crashed.problems) == (6, False, [])
    # Its end was sealed: who finds the database has nothing to add, and can't cut it short.
    place.sql("DELETE FROM audit_events WHERE principal = 'key:4'")
    assert any("are missing" in problem or "is missing" in problem for problem in place.problems())


def test_what_a_killed_process_had_begun_is_told_by_the_next(place: Place) -> None:
    """Between a change and its event: nobody can say whether it was done, but that it was about to be."""
    script = (
        "import os, sys, signal; from pathlib import Path; from tests.audit_trails import Place;"
        "from tests.test_audit_trail import call; place = Place(Path(sys.argv[1]), sys.argv[2]);"
        "trail = place.trail(place.open()); trail.start();"
        "done = [call(n, request_id=f'r{n}', resource='done') for n in range(3)];"
        "intents = [trail.begin(event) for event in done]; [trail.record(event) for event in done];"
        "trail.begin(call(7, request_id='r7', resource='secrets/prod')); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", script, str(place.folder), place.url]
    assert subprocess.run(command, check=False, timeout=60, stdout=subprocess.DEVNULL).returncode == -9
    with place.started() as trail:
        told = [entry.event for entry in trail.log.entries(Filter(kind="call"), 10)]
        assert [(event.outcome, event.resource) for event in told[1:]] == [("allowed", "done")] * 3
        interrupted = told[0]
        assert (interrupted.outcome, interrupted.code, interrupted.reason) == ("failed", "UNKNOWN", "INTERRUPTED")
        assert (interrupted.principal, interrupted.resource) == ("key:7", "secrets/prod")
    with place.started() as trail:
        assert len(trail.log.entries(Filter(kind="call"), 10)) == 4, "it is told once"
    assert place.problems() == []
    assert [file.name for file in (place.folder / "audit").iterdir()] == [f"{SERVICE}-heads.jsonl"]


def test_what_outlasts_the_end_of_its_process_is_told_by_the_next(local: Place) -> None:
    """A call that was still at work when the time to finish was over."""
    with local.started() as trail:
        trail.begin(call(1, request_id="late"))
    with local.started() as trail:
        [entry] = trail.log.entries(Filter(kind="call"), 10)
        assert (entry.event.reason, entry.event.request_id) == ("INTERRUPTED", "late")
    assert local.problems() == []


@pytest.mark.slow
def test_the_file_of_intents_does_not_grow_without_end(local: Place) -> None:
    with local.started() as trail:
        trail.begin(call(1, request_id="open"))
        size = 0
        for number in range(6000):
            intent = Intent(call(2, resource="x" * 1000), 0)
            trail._intents._open[id(intent)] = intent
            assert trail._intents._append([intent])
            trail.settle(intent)
            size = max(size, trail._intents._file.stat().st_size)
            if number == 3000:
                assert b'"request_id":"open"' in trail._intents._file.read_bytes()
        assert size < 2 << 20
        assert trail._intents._file.stat().st_mode & 0o777 == 0o600


def test_a_process_that_lives_is_not_sealed_by_another(place: Place) -> None:
    with place.started() as one, place.started() as other:
        one.record(call(1))
        other.record(call(2))
        assert [report.problems for report in other.verify()] == [[], []]
    assert place.problems() == []


@contextmanager
def full(place: Place) -> Iterator[None]:
    place.sql(FULL)
    try:
        yield
    finally:
        place.sql("DROP TRIGGER full")


def test_without_the_log_nothing_that_needs_it_is_done(local: Place) -> None:
    with local.started() as trail:
        with full(local):
            with pytest.raises(AuditUnavailable):
                trail.record(call(1))
            with pytest.raises(AuditUnavailable):
                trail.check()
            assert "call" not in kinds(local)
        trail._writer.retry()
        trail.check()
        trail.record(call(2))
        # The first event told of what may have happened: it was kept.
        assert [entry.event.principal for entry in trail.log.entries(Filter(kind="call"), 10)] == ["key:2", "key:1"]
    assert local.problems() == []


class LosesAnswers(Database):
    """A database whose answer to a commit gets lost on the way, when told so."""

    lose = False

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with super().write() as connection:
            yield connection
        if self.lose:
            raise sa.exc.OperationalError("commit", {}, Exception("the server closed the connection"))


def test_an_event_is_not_written_twice_when_the_answer_was_lost(place: Place) -> None:
    with closing(place.open()) as opened:
        database = LosesAnswers(opened.engine)
        trail = place.trail(database)
        trail.start()
        database.lose = True
        with pytest.raises(AuditUnavailable):
            trail.record(call(1))
        database.lose = False
        trail._writer.retry()
        trail.record(call(2))
        trail.close()
    assert kinds(place) == [OPENED, "call", "call", CLOSED]
    assert place.problems() == []


TAMPERING = {
    "edit": "UPDATE audit_events SET resource = 'secrets/other' WHERE sequence = 4",
    "edit of a count": "UPDATE audit_events SET count = 2 WHERE sequence = 4",
    "edit of a time": "UPDATE audit_events SET time = time + 1 WHERE sequence = 4",
    "deletion": "DELETE FROM audit_events WHERE sequence = 4",
    "deletion of the beginning": "DELETE FROM audit_events WHERE sequence <= 4",
    "deletion of the tail": "DELETE FROM audit_events WHERE sequence >= 8",
    "deletion of the chain": "DELETE FROM audit_events",
    "closing": "UPDATE audit_events SET kind = 'call' WHERE kind = 'audit.closed'",
    "insertion": (
        "INSERT INTO audit_events SELECT '01ZZZZZZZZZZZZZZZZZZZZZZZZ', time, kind, 'key:forged', principal_name,"
        " key_prefix, method, resource, outcome, code, reason, request_id, address, count, chain, 100, hash"
        " FROM audit_events WHERE sequence = 4"
    ),
    "a chain of somebody else": (
        "INSERT INTO audit_events SELECT '01ZZZZZZZZZZZZZZZZZZZZZZZZ', time, kind, principal, principal_name,"
        " key_prefix, method, resource, outcome, code, reason, request_id, address, count, 'forged', 1, hash"
        " FROM audit_events WHERE sequence = 1"
    ),
}


@pytest.mark.row("S1.9")
@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING.keys())
def test_whatever_is_done_in_the_database_is_found(place: Place, statement: str) -> None:
    with place.started() as trail:
        for number in range(7):
            trail.record(call(number))
    assert place.problems() == []
    place.sql(statement)
    assert place.problems() != []


@pytest.mark.row("S1.9")
def test_who_computes_every_hash_anew_is_found_by_the_signed_heads(place: Place) -> None:
    with place.started() as trail:
        for number in range(7):
            trail.record(call(number))
    with closing(place.open()) as database, database.write() as connection:
        columns = [audit_events.c[name] for name in chain.COLUMNS]
        rows = connection.execute(sa.select(*columns).order_by(audit_events.c.sequence)).all()
        previous, resource = chain.GENESIS, chain.COLUMNS.index("resource")
        for row in rows:
            edited = list(row)
            if row.sequence == 4:
                edited[resource] = "secrets/other"
            previous = chain.digest(SERVICE, previous, edited)
            changes = {"resource": edited[resource], "hash": previous}
            connection.execute(sa.update(audit_events).where(audit_events.c.id == row.id).values(changes))
    problems = place.problems()
    assert any("signed head" in problem for problem in problems)
    place.heads.unlink()
    # Without its heads the chain's own end, which the service signed, still tells.
    [problem] = place.problems()
    assert "not signed by the service" in problem


def test_two_events_that_change_places_are_found(place: Place) -> None:
    with place.started() as trail:
        for number in range(7):
            trail.record(call(number))
    place.sql(
        "UPDATE audit_events SET sequence = 100 WHERE sequence = 3",
        "UPDATE audit_events SET sequence = 3 WHERE sequence = 5",
        "UPDATE audit_events SET sequence = 5 WHERE sequence = 100",
    )
    assert len(place.problems()) >= 2


def test_a_chain_without_heads_at_hand_is_judged_by_its_hashes(place: Place, tmp_path: Path) -> None:
    """That of a replica, whose file is on another machine."""
    with place.started(tmp_path / "elsewhere") as replica, place.started() as trail:
        replica.record(call())
        reports = {report.chain: report for report in trail.verify()}
        [other] = [report for name, report in reports.items() if name != trail._writer.chain]
        assert (other.heads, other.problems) == (0, [])
        place.sql("UPDATE audit_events SET principal = 'key:other' WHERE principal = 'key:0'")
        assert any(report.problems for report in trail.verify() if report.chain == other.chain)


def test_heads_that_somebody_else_signed_are_a_problem(local: Place) -> None:
    with local.started() as trail:
        trail.record(call())
    last = json.loads(local.heads.read_text().splitlines()[-1])
    with local.heads.open("a") as heads:
        heads.write("{torn\n" + json.dumps(last | {"sequence": 2}) + "\n")
    assert local.problems() == ["There are heads of this chain that the service's key did not sign."]


def test_the_log_is_listed_newest_first_by_every_filter(place: Place) -> None:
    with place.started() as trail:
        for number in range(5):
            trail.record(call(number, resource=f"secrets/prod/{number}", request_id=f"request-{number}"))
        trail.record(Event("call", principal="user:A", method="strongroom.secrets.v1.SecretService/GetSecret"))

        def found(limit: int = 100, before: str = "", **fields: object) -> list[str]:
            entries = trail.log.entries(Filter(**{"kind": "call", **fields}), limit, before)
            return [entry.event.principal for entry in entries]

        assert found() == ["user:A", "key:4", "key:3", "key:2", "key:1", "key:0"]
        [_, second] = trail.log.entries(Filter(kind="call"), 2)
        assert found(2, second.id) == ["key:3", "key:2"]
        assert found(principal="key:*") == ["key:4", "key:3", "key:2", "key:1", "key:0"]
        assert found(principal="KEY:*") == found(principal="key:") == found(principal="%") == []
        assert found(resource="secrets/prod/3") == found(request_id="request-3") == ["key:3"]
        for method in ("GetSecret", "strongroom.secrets.v1.SecretService/GetSecret", "strongroom.secrets.*", "Get*"):
            assert found(method=method) == ["user:A"], method
        assert found(method="Secret") == found(method="etSecret") == found(method="%") == []
        [_, third, *_] = trail.log.entries(Filter(kind="call", principal="key:*"), 5)
        assert found(since=third.time) == ["user:A", "key:4", "key:3"]
        assert found(until=third.time) == ["key:2", "key:1", "key:0"]
        assert found(since=-1, until=2**62) == found()
        assert found(outcome="denied") == []


def test_a_text_that_postgresql_can_not_keep_is_kept_without_it(place: Place) -> None:
    with place.started() as trail:
        trail.record(call(resource="managers/a\0b\x1b[2J\ud800"))
        [entry] = trail.log.entries(Filter(kind="call"), 1)
        assert entry.event.resource == "managers/a\ufffdb\ufffd[2J\ufffd"
    assert place.problems() == []
