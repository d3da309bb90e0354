"""How grants, quotas and times are written on the command line; wrong usage is told before any call."""

from datetime import UTC, datetime

import pytest

from strongroom.cli import notation
from strongroom.cli.audit import _moment
from tests.terminal import Terminal

# Nobody listens there: what fails with status 2 failed before any call.
NOWHERE = Terminal("http://127.0.0.1:9", "sr_x")


def test_grants_as_they_are_written_and_read() -> None:
    grant = notation.grant("deny", "models.alias, models.delete on managers/*/models/**,secrets/x")
    assert (grant.effect, list(grant.permissions)) == ("deny", ["models.alias", "models.delete"])
    assert list(grant.resources) == ["managers/*/models/**", "secrets/x"]
    assert notation.spelled(grant) == "deny models.alias, models.delete on managers/*/models/**, secrets/x"
    assert notation.spelled(notation.grant("allow", "models.*")) == "allow models.* on everything"


@pytest.mark.parametrize("text", ["upload=10/hour", "train=1/minute", "other=1000000000/day"])
def test_quotas_as_they_are_written(text: str) -> None:
    quota = notation.quota(text)
    assert f"{quota.usage_class}={quota.requests}/{quota.per}" == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("45s", 45), ("30m", 1800), ("12h", 43200), ("1d", 86400)]
)
def test_lengths_of_time(text: str, seconds: int) -> None:
    assert notation.seconds("--grace", text) == seconds


def test_moments() -> None:
    now = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
    assert _moment("--since", "", lambda: now) is None
    assert _moment("--since", "2h", lambda: now) == datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
    assert _moment("--since", "2026-11-21T08:00+01:00", lambda: now) == datetime(2026, 11, 21, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("keys", "create", "k"), "--permission-set"),
        (("keys", "create", "k", "--permission-set", "a", "--permission", "models.read"), "not both"),
        (("keys", "create", "k", "--allow", "on x"), "is no permission"),
        (("keys", "create", "k", "--allow", "models.read on "), "is not of the form"),
        (("keys", "create", "k", "--deny", "Models on x", "--permission-set", "a"), "is no permission"),
        (("keys", "create", "k", "--permission-set", "a", "--quota", "upload=0/hour"), "CLASS=NUMBER/PERIOD"),
        (("keys", "create", "k", "--permission-set", "a", "--quota", "sing=1/hour"), "CLASS=NUMBER/PERIOD"),
        (("keys", "create", "k", "--permission-set", "a", "--expires", "0"), "--expires"),
        (("keys", "create"), "name the key"),
        (("keys", "rotate", "1", "--grace", "soon"), "no length of time"),
        (("keys", "extend", "1"), "--days"),
        (("keys", "update", "1", "--deny", "models.read on x"), "--deny alone"),
        (("users", "create", "ada@example.org"), "--role"),
        (("users", "create", "ada@example.org", "--role", "admin", "--password-stdin"), "no password"),
        (("users", "update", "ada@example.org"), "give --name"),
        (("login", "--email", "ada@example.org"), "--password-stdin"),
        (("login", "--password-stdin"), "needs --email"),
        (("passwd",), "--password-stdin"),
        (("audit", "list", "--since", "yesterday"), "no moment"),
        (("usage", "export", "--format", "xml"), "--format"),
        (("access", "explain", "self"), "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_told_in_one_line_before_any_call(arguments: tuple[str, ...], told: str) -> None:
    done = NOWHERE(*arguments)
    assert (done.status, done.out) == (2, "")
    assert told in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("group", ["keys", "users", "audit", "access", "usage", "admin"])
def test_every_command_explains_itself(group: str) -> None:
    done = NOWHERE(group, "--help")
    assert done.status == 0
    commands = [line.split()[0] for line in done.out.split("Commands:")[1].splitlines() if line.strip()]
    assert commands
    for command in commands:
        told = NOWHERE(group, command, "--help")
        assert told.status == 0
        assert "Usage: strongroom" in told.out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("strongroom keys create k --permission-set pre", ["predict", "prefect_workflows"]),
        ("strongroom users create a@b.c --role a", ["admin", "analyst"]),
    ],
)
def test_the_shell_completes_sets_and_roles_even_when_nobody_answers(typed: str, offered: list[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = NOWHERE(_STRONGROOM_COMPLETE="complete_bash", **words)
    assert done.out.split() == offered
    assert done.err == ""
