"""What a job's process may not do, whoever wrote its runner (docs/training.md says what this does not cover)."""

import os
import platform
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ml_jobs import Ml, with_hostile_runner
from tests.models_installation import Installation

pytestmark = pytest.mark.row("S1.3")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("checkout")
    with with_hostile_runner(folder, job_memory_mb=512, job_folder_mb=64, job_slots=4) as made:
        yield made


@pytest.fixture
def ml(made: Installation) -> Ml:
    return Ml(made)


def achieved(ml: Ml, act: str, **config: Any) -> str:
    """What the act achieved; the empty text if the system refused it."""
    job = ml.trained({"runner": "hostile", "act": act, **config})
    assert job.status == "completed", job
    if any(line.startswith("refused: ") for line in ml.log(job.id)):
        return ""
    [answer] = ml.predicted(job.artifact_id, ["x"], [[1]])
    return str(answer)


def ended(ml: Ml, act: str, **config: Any) -> tuple[str, str]:
    job = ml.trained({"runner": "hostile", "act": act, **config})
    return job.status, job.reason


def test_the_runner_does_what_is_allowed(ml: Ml) -> None:
    assert achieved(ml, "nothing") == "done"
    assert achieved(ml, "write", at="own.txt") == "16"


def test_a_memory_hog_fails_alone(ml: Ml) -> None:
    assert ended(ml, "hog") == ("failed", "MEMORY_EXCEEDED")


def test_an_endless_loop_ends_in_time(ml: Ml) -> None:
    began = time.monotonic()
    assert ended(ml, "loop", timeout_seconds=1) == ("failed", "JOB_TIMEOUT")
    assert time.monotonic() < began + 10


def test_a_full_folder_ends_the_job(ml: Ml) -> None:
    assert ended(ml, "fill") == ("failed", "FOLDER_FULL")


@pytest.mark.parametrize("act", ["bury", "swarm"])
def test_what_is_hidden_in_a_folder_counts(ml: Ml, act: str) -> None:
    """Deeper than a path is long, and what has no bytes of its own."""
    assert ended(ml, act) == ("failed", "FOLDER_FULL")


@pytest.mark.parametrize("act", ["bury", "litter"])
def test_nothing_of_a_folder_is_left(ml: Ml, act: str) -> None:
    job = ml.trained({"runner": "hostile", "act": act})
    assert (job.status, job.reason) == (("failed", "FOLDER_FULL") if act == "bury" else ("completed", ""))
    [folder] = ml.log(job.id)
    assert Path(folder).name.startswith("strongroom-job-")
    assert not Path(folder).exists()


def test_files_outside_its_folder_are_neither_read_nor_written(made: Installation, ml: Ml, tmp_path: Path) -> None:
    database = made.folder / "db" / "strongroom-models.db"
    assert database.is_file()
    secrets = [database, made.folder / "root.key", made.folder / "keys" / "models.pem", Path("/etc/passwd")]
    for file in (*secrets, Path(f"/proc/{os.getpid()}/environ"), Path(f"/proc/{os.getppid()}/cmdline")):
        assert achieved(ml, "read", at=str(file)) == "", file
        assert achieved(ml, "link", at=str(file)) == "", file
    shared = Path("/dev/shm") / tmp_path.name  # noqa: S108
    for file in (tmp_path / "note", made.folder / "weights" / "note", shared):
        assert achieved(ml, "write", at=str(file)) == "", file
        assert not file.exists()
    program = made.folder.parent / "hostile_runner.py"
    assert achieved(ml, "write", at=str(program)) == ""


@pytest.mark.parametrize("act", ["mode", "touch", "own", "cut", "attribute", "remove", "move"])
def test_a_file_elsewhere_stays_as_it_is(made: Installation, ml: Ml, act: str) -> None:
    """Also what the owner of a file may do without opening it."""
    file = made.folder / "keys" / "models.pem"
    before = file.stat()
    assert achieved(ml, act, at=str(file)) == ""
    assert file.stat() == before


def test_no_process_and_no_program_is_started(ml: Ml) -> None:
    assert achieved(ml, "fork") == ""
    assert achieved(ml, "run") == ""


def test_nothing_is_reached_over_the_network(made: Installation, ml: Ml) -> None:
    assert achieved(ml, "connect", number=int(made.address.rpartition(":")[2])) == ""


@pytest.mark.parametrize("act", ["kill", "tgkill", "limit_other", "pin_other"])
def test_no_other_process_is_signalled_or_changed(ml: Ml, act: str) -> None:
    if act == "tgkill" and platform.machine() != "x86_64":
        pytest.skip("the number of this system call is that of x86-64")
    before = resource.getrlimit(resource.RLIMIT_NOFILE), os.sched_getaffinity(0)
    assert achieved(ml, act, number=os.getpid()) == ""
    assert before == (resource.getrlimit(resource.RLIMIT_NOFILE), os.sched_getaffinity(0))


def test_a_runner_may_use_threads(ml: Ml) -> None:
    assert achieved(ml, "threads") == "0,1,2,3"


def test_limits_are_not_raised_again(ml: Ml) -> None:
    assert achieved(ml, "raise_limits") == ""


def test_the_environment_is_empty_of_the_services(ml: Ml, monkeypatch: pytest.MonkeyPatch) -> None:
    names = set(achieved(ml, "environment").split(","))
    assert not {name for name in names if name.startswith("STRONGROOM")}
    assert names <= {
        *("HOME", "LANG", "LC_CTYPE", "LOKY_MAX_CPU_COUNT", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "PATH", "TMPDIR"),
        *("JOBLIB_MULTIPROCESSING", "OPENBLAS_NUM_THREADS", "PYTHONPATH"),
        *(name for name in names if name.startswith(("KMP_", "__KMP_", "SKLEARN_", "PYDEVD"))),
    }
    # Input, output, errors and answers; and the folder that is being listed.
    assert achieved(ml, "descriptors") == "0,1,2,3,4"


def test_a_disturbed_answer_fails_the_job(ml: Ml) -> None:
    assert ended(ml, "disturb") == ("failed", "RUNNER_BROKEN")


def test_a_chatterbox_is_cut_short(ml: Ml) -> None:
    job = ml.trained({"runner": "hostile", "act": "chatter"})
    assert job.status == "completed"
    assert len(ml.log(job.id)) <= 1000


def test_a_process_that_dies_is_tried_once_more(ml: Ml) -> None:
    job = ml.trained({"runner": "hostile", "act": "die"})
    assert (job.status, job.reason, job.attempts) == ("failed", "WORKER_KILLED", 2)
