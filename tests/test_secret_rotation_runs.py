"""Rotations step by step: what is served, what is kept, what is taken back, and who may do it."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.secrets.rotation import runs
from services.secrets.rotation.leases import LEASE
from services.secrets.rotation.policies import RotationNotConfigured, RotationRunning
from services.secrets.rotation.registry import RotatorUnknown
from services.secrets.rotation.runs import State
from services.secrets.rotation.schedule import ScheduleInvalid
from services.secrets.vault_errors import SecretNotFound, SecretStageNotFound, SecretVersionDestroyed
from services.shared.errors import PermissionMissing
from tests.rotating import BEGINNING, Recording, Rotating

pytestmark = pytest.mark.row("S4.3")

OLD = {"user": "ada", "password": "old-value-4711"}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/strongroom.db"
    return request.getfixturevalue("postgresql_server").create_database()


@pytest.fixture
def rotating(tmp_path: Path) -> Iterator[Rotating]:
    made = Rotating.open(f"sqlite:///{tmp_path}/strongroom.db")
    made.vault.create("db", OLD, "key:owner")
    Recording.calls.clear()
    Recording.hooks.clear()
    yield made
    made.database.close()


def steps() -> list[str]:
    return [step for _, step in Recording.calls]


def test_a_rotation_is_staged_tested_promoted_and_the_value_before_ends_after_its_grace(rotating: Rotating) -> None:
    rotating.plan("db", "recording", grace=3600)
    seen = []
    Recording.hooks["db"] = lambda: seen.append((steps()[-1], rotating.value("db")["password"]))
    status = rotating.rotate("db")
    # Until it is tested, the old value is what is served.
    assert seen == [(step, OLD["password"]) for step in ("propose", "apply", "test")]
    assert rotating.value("db") == {"user": "ada", "password": f"{status.latest.id}-new"}
    assert rotating.value("db", stage="previous") == OLD
    assert (status.latest.state, status.latest.base_version, status.latest.version) == (State.DONE, 1, 2)
    assert rotating.later(minutes=59) == 0
    assert rotating.later(minutes=2) == 1
    assert steps() == ["propose", "apply", "test", "retire"]
    with pytest.raises(SecretVersionDestroyed):
        rotating.vault.get("db", 1)
    assert [run.state for run in rotating.ended] == [State.DONE]


@pytest.mark.parametrize("step", ["propose", "apply", "test"])
def test_a_step_that_fails_takes_everything_back(rotating: Rotating, step: str) -> None:
    rotating.plan("db", "recording", {"fails": step})
    status = rotating.rotate("db")
    assert status.latest.state is State.ROLLED_BACK
    assert (status.latest.reason, status.latest.error) == ("ROTATION_TARGET_REFUSES", "It does not work.")
    assert steps()[-2:] == [step, "rollback"]
    assert (rotating.value("db"), rotating.version("db")) == (OLD, 1)
    with pytest.raises(SecretStageNotFound):
        rotating.vault.get("db", stage="pending")
    # Who asked for it asks again; the next one works.
    rotating.plan("db", "recording")
    assert rotating.rotate("db").latest.state is State.DONE


def test_the_text_of_an_unforeseen_error_is_told_to_nobody(
    rotating: Rotating, capfd: pytest.CaptureFixture[str]
) -> None:
    rotating.plan("db", "recording", {"breaks": "propose"})
    status = rotating.rotate("db")
    assert status.latest.error == "The rotator failed (RuntimeError)."
    assert OLD["password"] not in repr(status) + "".join(capfd.readouterr())


def test_what_cannot_be_taken_back_now_is_tried_again_until_it_is(rotating: Rotating) -> None:
    rotating.plan("db", "recording", {"fails": "apply", "breaks": "rollback"})
    status = rotating.rotate("db")
    assert status.running.state is State.ROLLBACK
    assert status.error == "The rotator failed (RuntimeError)."
    with pytest.raises(RotationRunning):
        rotating.policies.request("db", "key:asker")
    with pytest.raises(RotationRunning):
        rotating.policies.remove("db")
    rotating.later(minutes=2)
    assert steps().count("rollback") == 2
    assert rotating.value("db") == OLD
    # Of a server that never comes back the owner lets go.
    rotating.policies.remove("db", abandon=True)
    assert rotating.later(days=1) == 0
    rotating.plan("db", "recording")
    assert rotating.rotate("db").latest.state is State.DONE


def test_a_schedule_rotates_and_missed_turns_are_caught_up_once(rotating: Rotating) -> None:
    status = rotating.plan("db", "recording", schedule="0 3 * * *", grace=60)
    assert status.next_run_at == BEGINNING + timedelta(hours=3)
    assert rotating.later(hours=2) == 0
    assert rotating.later(hours=1) == 1
    assert rotating.version("db") == 2
    # Nothing ran for ten days.
    rotating.later(days=10)
    assert rotating.version("db") == 3
    status = rotating.policies.get("db")
    assert status.next_run_at == rotating.now + timedelta(days=1)
    assert [run.trigger for run in rotating.policies.history("db")] == ["schedule", "schedule"]


def test_a_scheduled_rotation_that_failed_is_tried_again_ever_less_often(rotating: Rotating) -> None:
    rotating.plan("db", "recording", {"fails": "test"}, schedule="0 0 1 * *")
    rotating.later(days=31)
    waits = []
    for _ in range(9):
        status = rotating.policies.get("db")
        waits.append(int((status.retry_at - rotating.now).total_seconds()) // 60)
        rotating.later(seconds=(status.retry_at - rotating.now).total_seconds())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    rotating.plan("db", "recording", schedule="0 0 1 * *")
    assert rotating.policies.get("db").failures == 0


def test_a_value_that_expires_or_is_deleted_is_replaced_and_ended_all_the_same(rotating: Rotating) -> None:
    rotating.vault.edit("db", set_labels={}, expires_at=BEGINNING + timedelta(hours=1))
    rotating.plan("db", "recording", schedule="0 3 * * *", grace=60)
    # It expires before its turn.
    rotating.later(hours=3)
    assert rotating.version("db") == 2
    rotating.later(minutes=2)
    assert steps() == ["propose", "apply", "test", "retire"]
    # The next one is deleted while its grace lasts: what it opens has to be closed, too.
    rotating.rotate("db")
    rotating.vault.delete("db", [2])
    rotating.later(minutes=2)
    assert steps().count("retire") == 2
    assert rotating.policies.get("db").error == ""
    assert {version.destroyed_at is None for version in rotating.vault.history("db")[1:]} == {False}


def test_what_is_staged_for_a_rotation_that_was_given_up_is_in_nobodys_way(rotating: Rotating) -> None:
    rotating.plan("db", "recording")

    def give_up() -> None:
        if steps()[-1] == "propose":
            rotating.policies.remove("db", abandon=True)

    Recording.hooks["db"] = give_up
    rotating.policies.request("db", "key:asker")
    rotating.later(seconds=1)
    assert (rotating.value("db"), rotating.value("db", stage="pending")["user"]) == (OLD, "ada")
    Recording.hooks.clear()
    rotating.plan("db", "recording")
    assert rotating.rotate("db").latest.state is State.DONE


def test_a_secret_that_is_deleted_and_made_anew_does_not_rotate_as_the_one_before_did(rotating: Rotating) -> None:
    rotating.plan("db", "recording", schedule="0 3 * * *", grace=3600)
    rotating.rotate("db")
    rotating.vault.delete("db")
    rotating.vault.create("db", {"password": "of another owner"}, "key:another")
    with pytest.raises(RotationNotConfigured):
        rotating.policies.get("db")
    rotating.later(days=2)
    assert steps() == ["propose", "apply", "test"]
    assert rotating.value("db") == {"password": "of another owner"}


def test_a_secret_that_is_made_anew_while_it_rotates_keeps_its_value(rotating: Rotating) -> None:
    rotating.plan("db", "recording")

    def make_anew() -> None:
        if steps()[-1] == "apply":
            rotating.vault.delete("db")
            rotating.vault.create("db", {"password": "of another owner"}, "key:another")

    Recording.hooks["db"] = make_anew
    rotating.policies.request("db", "key:asker")
    rotating.later(seconds=1)
    rotating.later(days=1)
    assert rotating.value("db") == {"password": "of another owner"}
    assert [run.state for run in rotating.policies.history("db")] == [State.ROLLED_BACK]


def test_what_somebody_writes_during_a_rotation_stays(rotating: Rotating) -> None:
    rotating.plan("db", "recording")

    def write() -> None:
        if steps()[-1] == "test":
            rotating.vault.update("db", {"password": "by hand"}, "key:other")

    Recording.hooks["db"] = write
    status = rotating.rotate("db")
    assert (status.latest.state, status.latest.reason) == (State.ROLLED_BACK, "SECRET_CHANGED_MEANWHILE")
    assert rotating.value("db") == {"password": "by hand"}
    assert steps()[-1] == "rollback"


def test_a_rotation_never_touches_a_pending_version_of_somebody_else(rotating: Rotating) -> None:
    rotating.plan("db", "recording")
    rotating.vault.stage("db", {"password": "theirs"}, "key:other")
    assert rotating.rotate("db").latest.reason == "VERSION_PENDING"
    assert rotating.value("db", stage="pending") == {"password": "theirs"}


def test_a_rotation_reads_no_secret_that_its_options_do_not_name(rotating: Rotating) -> None:
    rotating.vault.create("admin", {"password": "admin"}, "key:owner")
    plan = rotating.plan("db", "recording", {"reads": ["admin"]}).plan
    with pytest.raises(PermissionMissing, match="secrets/admin"):
        rotating.policies.set("db", plan, "key:mallory", readable=lambda name: name != "admin")
    assert rotating.rotate("db").latest.state is State.DONE
    # The audit log is told of each time.
    assert rotating.read == [("db", "admin")] * 3
    rotating.policies.remove("db")
    rotating.plan("db", "recording", {"reads": ["admin"]})
    rotator = rotating.rotators.get("recording")
    rotator.check = lambda _options: frozenset()  # type: ignore[method-assign]
    assert rotating.rotate("db").running.reason == "PERMISSION_DENIED"


def test_one_of_several_replicas_does_it(url: str) -> None:
    replicas = [Rotating.open(url) for _ in range(4)]
    Recording.calls.clear()
    Recording.hooks.clear()
    replicas[0].vault.create("race", OLD, "key:owner")
    replicas[0].plan("race", "recording")
    for turn in range(3):
        replicas[0].policies.request("race", "key:asker")
        ready = threading.Barrier(len(replicas))

        def work(replica: Rotating, ready: threading.Barrier = ready) -> None:
            ready.wait()
            replica.later(seconds=0)

        threads = [threading.Thread(target=work, args=[replica]) for replica in replicas]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert steps().count("propose") == turn + 1
        assert replicas[0].version("race") == turn + 2
    for replica in replicas:
        replica.database.close()


def test_who_was_too_slow_records_nothing(rotating: Rotating) -> None:
    """A process that is stopped in a step and wakes up when another one has its secret does nothing more."""
    rotating.plan("db", "recording")
    other = Rotating(rotating.database)

    def sleep_long() -> None:
        if steps() == ["propose", "apply"]:
            other.now = rotating.now + LEASE + timedelta(seconds=1)
            other.later()

    Recording.hooks["db"] = sleep_long
    rotating.rotate("db")
    # The other one finished the run that the first had begun, and the first left it at that.
    assert steps() == ["propose", "apply", "apply", "test"]
    assert [run.state for run in rotating.policies.history("db")] == [State.DONE]
    assert rotating.version("db") == 2
    assert [run.state for run in other.ended] == [State.DONE]
    assert rotating.ended == []


def test_with_a_secret_its_rotation_goes(rotating: Rotating) -> None:
    """Another secret of that name, perhaps somebody else's, does not take over its targets."""
    rotating.plan("db", "recording", schedule="* * * * *")
    rotating.rotate("db")
    rotating.vault.destroy("db")
    rotating.vault.create("db", OLD, "key:other")
    with pytest.raises(RotationNotConfigured):
        rotating.policies.get("db")
    assert rotating.later(days=1) == 0
    assert rotating.policies.history("db") == []


def test_a_deleted_secret_does_not_rotate_until_it_is_back(rotating: Rotating) -> None:
    rotating.plan("db", "recording", schedule="0 * * * *")
    rotating.vault.delete("db")
    rotating.later(hours=3)
    assert Recording.calls == []
    assert rotating.policies.get("db").error.startswith("Secret 'db' is deleted.")
    rotating.vault.undelete("db")
    rotating.later(hours=1)
    status = rotating.policies.get("db")
    assert (status.error, status.latest.state) == ("", State.DONE)


def test_what_is_refused(rotating: Rotating) -> None:
    with pytest.raises(RotatorUnknown, match="postgresql"):
        rotating.plan("db", "nosuch")
    with pytest.raises(ScheduleInvalid):
        rotating.plan("db", "recording", schedule="61 * * * *")
    with pytest.raises(SecretNotFound):
        rotating.plan("none", "recording")
    with pytest.raises(RotationNotConfigured):
        rotating.policies.request("db", "key:asker")
    with pytest.raises(RotationNotConfigured):
        rotating.policies.remove("db")


def test_old_runs_are_forgotten(rotating: Rotating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KEPT", 3)
    rotating.plan("db", "random", grace=0)
    made = [rotating.rotate("db").latest.id for _ in range(6)]
    assert [run.id for run in rotating.policies.history("db", limit=1000)] == made[:2:-1]
