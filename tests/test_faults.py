"""Twenty seconds of faults under a mixed load (`make faults` takes five minutes); and the judge of it is not blind."""

import os
from pathlib import Path

import pytest

from tests.faults.chaos import Chaos
from tests.faults.history import History, Register
from tests.faults.installation import Installation
from tests.faults.rest import Failed
from tests.postgresql import Server

SECONDS = float(os.environ.get("STRONGROOM_FAULT_SECONDS", "20"))
# Of `make faults`, on a machine that does nothing else, it is ten.
RECOVERY = float(os.environ.get("STRONGROOM_FAULT_RECOVERY", "30"))
# Another one each time finds more; a failure says it.
SEED = int(os.environ.get("STRONGROOM_FAULT_SEED", "0")) or int.from_bytes(os.urandom(4))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_and_nobody_reads_what_they_may_not(
    tmp_path: Path, postgresql_server: Server
) -> None:
    with Installation(tmp_path, postgresql_server.create_database(), with_lines=True) as installation:
        report = Chaos(installation, SEED, recovery=RECOVERY).run(SECONDS)
    assert not report.violations, f"seed {SEED}\n{report}"


def test_a_lost_a_stale_and_an_invented_version_are_told() -> None:
    register = Register("name")
    for version, value in ((1, "a"), (2, "b")):
        register.attempt(version, value)
        register.acknowledge(version, value)
    assert register.complaint(2, 2, "b") == ""
    assert register.complaint(2, 1, "a") == "name: version 1 was read after 2 was acknowledged"
    assert register.complaint(2, 2, "a") == "name: version 2 is a, acknowledged was b"
    assert register.complaint(2, 3, "c") == "name: version 3 is c, which nobody wrote"


def test_a_write_in_doubt_may_come_late_and_then_stays() -> None:
    register = Register("name")
    for value in ("in doubt", "later"):
        register.attempt(1, value)
    assert register.complaint(0, 1, "in doubt") == ""
    assert register.newest == 1
    assert register.complaint(1, 1, "later") == "name: version 1 is later, acknowledged was in doubt"


def test_an_error_that_is_not_documented_is_told() -> None:
    history = History()
    history.failed("act", Failed(503, "UNAVAILABLE", ""))
    assert not history.violations
    history.failed("act", Failed(500, "INTERNAL", ""))
    history.failed("act", Failed(0, "RemoteDisconnected", ""))
    assert len(history.violations) == 2
