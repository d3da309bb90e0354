"""Passwords of real PostgreSQL roles: an application that logs in throughout never fails, whatever dies."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from services.secrets.rotation.options import OptionsInvalid
from services.secrets.rotation.runs import State
from services.secrets.rotation.targets import TargetForbidden
from services.secrets.vault_errors import SecretStageNotFound
from tests.database_roles import Application, Roles
from tests.postgresql import Server
from tests.rotating import Rotating, dying

pytestmark = pytest.mark.row("S4.3")


@pytest.fixture
def roles(postgresql_server: Server) -> Roles:
    return Roles.make(postgresql_server)


@pytest.fixture
def rotating(tmp_path: Path, roles: Roles) -> Iterator[Rotating]:
    made = Rotating.open(f"sqlite:///{tmp_path}/strongroom.db")
    keep(made, roles)
    yield made
    made.database.close()


def keep(rotating: Rotating, roles: Roles) -> None:
    rotating.vault.create("pg/app", {**roles.value, "note": "kept"}, "key:owner")
    rotating.vault.create("pg/admin", roles.admin, "key:owner")


def application(rotating: Rotating, roles: Roles) -> Application:
    def read() -> tuple[int, dict[str, Any]]:
        value = rotating.vault.get("pg/app")
        return value.about.version, dict(value.data)

    return Application(roles, read)


def server_log(server: Server) -> str:
    with psycopg.connect(server.url) as connection:
        [folder] = connection.execute("SHOW data_directory").fetchone()
    return Path(folder).parent.joinpath("server.log").read_text(errors="replace")


def test_two_roles_take_turns_and_the_application_is_never_refused(rotating: Rotating, roles: Roles) -> None:
    rotating.plan("pg/app", "postgresql", roles.options(), grace=3600)
    with application(rotating, roles) as running:
        for turn in range(4):
            status = rotating.rotate("pg/app")
            assert (status.latest.state, status.latest.error) == (State.DONE, "")
            value = rotating.value("pg/app")
            assert value["username"] == roles.names[(turn + 1) % 2]
            assert value["note"] == "kept"
            assert roles.logs_in(value)
            # Whoever has read the secret before has an hour to read it again.
            assert roles.logs_in(rotating.value("pg/app", stage="previous"))
    assert running.refused == []
    assert running.logins > 4


def test_after_the_grace_no_password_opens_the_role_before(rotating: Rotating, roles: Roles) -> None:
    rotating.plan("pg/app", "postgresql", roles.options(), grace=60)
    before = rotating.value("pg/app")
    rotating.rotate("pg/app")
    assert roles.logs_in(before)
    rotating.later(minutes=2)
    assert not roles.logs_in(before)
    assert roles.logs_in(rotating.value("pg/app"))


@pytest.mark.parametrize("by", ["administrator", "itself"])
def test_one_role_changes_in_place(rotating: Rotating, roles: Roles, by: str) -> None:
    admin = {"admin_secret": "pg/admin"} if by == "administrator" else {"admin_secret": None}
    rotating.plan("pg/app", "postgresql", roles.options(roles=[roles.names[0]], **admin))
    for _ in range(2):
        before = rotating.value("pg/app")
        assert rotating.rotate("pg/app").latest.state is State.DONE
        assert roles.logs_in(rotating.value("pg/app"))
        assert not roles.logs_in(before)
    rotating.later(days=2)
    assert roles.logs_in(rotating.value("pg/app"))


def test_the_server_is_never_told_a_password(rotating: Rotating, roles: Roles) -> None:
    with psycopg.connect(roles.server.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("SELECT pg_reload_conf()")
    rotating.plan("pg/app", "postgresql", roles.options())
    rotating.rotate("pg/app")
    new = rotating.value("pg/app")
    log = server_log(roles.server)
    assert f'ALTER ROLE "{new["username"]}" PASSWORD \'SCRAM-SHA-256$' in log
    assert new["password"] not in log


@pytest.mark.parametrize("roles_count", [1, 2])
def test_a_new_password_that_does_not_log_in_is_taken_back(rotating: Rotating, roles: Roles, roles_count: int) -> None:
    role = roles.names[roles_count - 1]
    with psycopg.connect(roles.server.url, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {role} VALID UNTIL '2020-01-01'")
    rotating.plan("pg/app", "postgresql", roles.options(roles=list(roles.names[:roles_count])))
    status = rotating.rotate("pg/app")
    assert (status.latest.state, status.latest.reason) == (State.ROLLED_BACK, "ROTATION_TARGET_REFUSES")
    assert rotating.value("pg/app") == {**roles.value, "note": "kept"}
    with pytest.raises(SecretStageNotFound):
        rotating.vault.get("pg/app", stage="pending")
    with psycopg.connect(roles.server.url, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {role} VALID UNTIL 'infinity'")
    assert roles.logs_in(rotating.value("pg/app"))


def test_what_the_administrator_may_not_do_is_said_without_the_statement(rotating: Rotating, roles: Roles) -> None:
    rotating.vault.update("pg/admin", {**roles.admin, **roles.value}, "key:owner")
    rotating.plan("pg/app", "postgresql", roles.options())
    running = rotating.rotate("pg/app").running
    assert running.state is State.ROLLBACK
    assert running.error.endswith(f"refuses {roles.names[0]} the change (InsufficientPrivilege).")


def test_a_server_that_is_away_changes_nothing(rotating: Rotating, roles: Roles) -> None:
    rotating.plan("pg/app", "postgresql", roles.options(port=1))
    status = rotating.rotate("pg/app")
    assert status.error == "PostgreSQL at 127.0.0.1:1 does not answer. Is it there?"
    assert roles.logs_in(rotating.value("pg/app"))


def test_options_that_are_refused(rotating: Rotating, roles: Roles) -> None:
    def refused(**fields: Any) -> str:
        with pytest.raises((OptionsInvalid, TargetForbidden)) as caught:
            rotating.plan("pg/app", "postgresql", roles.options(**fields))
        return caught.value.message

    assert "STRONGROOM_ROTATION_TARGETS" in refused(host="169.254.169.254", tls="verify-full")
    assert "without TLS" in refused(host="db.example.com")
    assert refused(roles=["a", "a"]) == "Option roles: two different roles, or one."
    assert refused(host="/var/run/postgresql").startswith("Option host:")
    assert refused(host="a,b").startswith("Option host:")
    # Whoever writes a password here by mistake does not find it in the answer.
    assert refused(password="hunter2-4711") == "Option password: Extra inputs are not permitted."


def test_a_secret_whose_user_is_none_of_the_roles(rotating: Rotating, roles: Roles) -> None:
    rotating.vault.update("pg/app", {"username": "somebody", "password": "x"}, "key:owner")
    rotating.plan("pg/app", "postgresql", roles.options())
    assert rotating.rotate("pg/app").latest.reason == "SECRET_UNFIT"


Dying = Callable[..., str | None]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dying]:
    with dying(tmp_path_factory.mktemp("dying")) as work:
        yield work


# Every step on SQLite, in three parts; on PostgreSQL the same transactions follow each other, and each takes its time.
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("kept_in", "first", "stride"), [("sqlite", 1, 3), ("sqlite", 2, 3), ("sqlite", 3, 3), ("postgresql", 1, 4)]
)
def test_killed_at_any_step_the_secret_in_use_works(
    tmp_path: Path, roles: Roles, killed: Dying, kept_in: str, first: int, stride: int
) -> None:
    """`kill -9` at each step of a rotation, one after the other: the application logs in before, during and after."""
    url = f"sqlite:///{tmp_path}/strongroom.db" if kept_in == "sqlite" else roles.server.create_database()
    rotating = Rotating.open(url)
    keep(rotating, roles)
    rotating.plan("pg/app", "postgresql", roles.options(), grace=60)
    with application(rotating, roles) as running:
        for step in count(first, stride):
            before = rotating.version("pg/app")
            rotating.policies.request("pg/app", "key:asker")
            died_at = killed(url, rotating.now, step)
            assert roles.logs_in(rotating.value("pg/app")), f"refused after death at {died_at}, step {step}"
            rotating.take_over()
            status = rotating.policies.get("pg/app")
            assert (status.running, status.error) == (None, ""), died_at
            assert status.latest.state is State.DONE, died_at
            assert rotating.version("pg/app") > before, died_at
            assert roles.logs_in(rotating.value("pg/app")), died_at
            if died_at is None:
                assert step > 15, "the steps are not seen any more"
                break
    assert running.refused == []
    assert running.logins > 0
    # Every value that was made is in use, in its grace or gone.
    rotating.later(hours=1)
    left = [version for version in rotating.vault.history("pg/app") if version.destroyed_at is None]
    assert [version.stage for version in left] == ["current"]
    rotating.database.close()


@pytest.mark.parametrize("step", range(3, 40, 5))
def test_killed_with_one_role_the_next_replica_makes_it_whole(
    tmp_path: Path, roles: Roles, killed: Dying, step: int
) -> None:
    """Until then the pending value logs in where the current one does not: one of the two always does."""
    url = f"sqlite:///{tmp_path}/strongroom.db"
    rotating = Rotating.open(url)
    keep(rotating, roles)
    rotating.plan("pg/app", "postgresql", roles.options(roles=[roles.names[0]]))
    rotating.policies.request("pg/app", "key:asker")
    died_at = killed(url, rotating.now, step)
    try:
        values = [rotating.value("pg/app"), rotating.value("pg/app", stage="pending")]
    except SecretStageNotFound:
        values = [rotating.value("pg/app")]
    assert any(map(roles.logs_in, values)), died_at
    rotating.take_over()
    assert rotating.policies.get("pg/app").latest.state is State.DONE
    assert roles.logs_in(rotating.value("pg/app")), died_at
    rotating.database.close()
