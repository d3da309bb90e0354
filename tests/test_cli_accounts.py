"""`strongroom users`, `login --email`, `passwd`, `logout`, `whoami`: people at the command line."""

import json
import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom import Client
from strongroom.errors import FailedPrecondition, StrongroomError, Unauthenticated
from strongroom.session import MemoryStore
from tests.screen import Dialogue
from tests.stack import STRONGROOM, Stack
from tests.terminal import Terminal

pytestmark = pytest.mark.row("S2.6")

PASSWORD = "correct horse battery staple"
OTHER = "another horse, another stable"


@pytest.fixture
def strongroom(stack: Stack) -> Terminal:
    return Terminal.of(stack)


@pytest.fixture
def home(stack: Stack, tmp_path: Path) -> Terminal:
    """A machine where nobody has logged in yet."""
    return Terminal(stack.url, "", home=str(tmp_path))


@pytest.fixture
def somebody(request: pytest.FixtureRequest, stack: Stack) -> Iterator[str]:
    """The e-mail address of a researcher whose password is PASSWORD."""
    email = f"{request.node.name.removeprefix('test_')[:40].strip('_').lower()}@example.org"
    with Client(stack.url, api_key=stack.admin_key) as admin:
        user = admin.users.create(email, role="researcher", password=PASSWORD)
        yield email
        admin.users.delete(user.id)


def profile(home: Terminal) -> Path:
    return Path(home.home) / "strongroom" / "profile.json"


def test_a_user_from_create_to_delete(strongroom: Terminal, home: Terminal) -> None:
    created = strongroom("users", "create", "life@example.org", "--role", "viewer", "--name", "Liv", "--json").json
    assert created["must_change_password"]
    assert "life@example.org" in strongroom("users", "list").out
    assert created["password"] not in strongroom("users", "show", "life@example.org", "--json").out
    changed = strongroom("users", "update", "life@example.org", "--role", "analyst").out
    assert changed == "life@example.org is analyst, active, must change password\n"
    reset = strongroom("users", "reset-password", created["id"]).out.strip()
    assert reset
    assert reset != created["password"]
    signed = home("login", "--email", "life@example.org", "--password-stdin", stdin=f"{reset}\n{PASSWORD}\n")
    assert signed.status == 0, signed.err
    assert strongroom("users", "sign-out", "life@example.org").out == "signed out life@example.org: 1 session ended\n"
    deleted = strongroom("users", "delete", "life@example.org", "--yes").out
    assert deleted == "deleted life@example.org: 0 keys revoked\n"
    refused = strongroom("users", "show", "life@example.org")
    assert (refused.status, refused.err) == (1, "strongroom: there is no user life@example.org\n")


def test_the_roles_are_five(strongroom: Terminal) -> None:
    roles = strongroom("users", "roles", "--json").json["roles"]
    assert {role["name"] for role in roles} == {"admin", "researcher", "analyst", "viewer", "guest"}
    assert "allow * on **" in strongroom("users", "roles").out


def test_login_keeps_a_session_that_all_commands_use(home: Terminal, somebody: str) -> None:
    done = home("login", "--email", somebody, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert done.status == 0, done.err
    assert f"as {somebody}; kept in " in done.out
    assert stat.S_IMODE(profile(home).stat().st_mode) == 0o600
    assert PASSWORD not in profile(home).read_text()
    assert home("ls").status == 0
    assert somebody in home("whoami").out
    assert "role researcher" in home("whoami").out
    caller = home("whoami", "--json").json
    assert caller["role"] == "researcher"
    refused = home("users", "list")
    assert (refused.status, refused.err.startswith("strongroom: not allowed: ")) == (1, True)


def test_a_token_that_ends_is_renewed_and_kept(home: Terminal, somebody: str) -> None:
    home("login", "--email", somebody, "--password-stdin", stdin=f"{PASSWORD}\n")
    before = json.loads(profile(home).read_text())
    aged = before["session"] | {"renew_at": time.time() - 1, "expires_at": time.time() - 1, "access_token": "old"}
    profile(home).write_text(json.dumps(before | {"session": aged}))
    assert home("whoami").status == 0
    after = json.loads(profile(home).read_text())
    assert after["session"]["refresh_token"] != before["session"]["refresh_token"]
    assert home("whoami").status == 0
    # Who copied the profile earlier has a token that was shown already: the session ends for both.
    profile(home).write_text(json.dumps(before | {"session": aged}))
    refused = home("whoami")
    assert refused.status == 1
    assert "sign in again" in refused.err
    assert "strongroom login" in refused.err
    profile(home).write_text(json.dumps(after))
    assert home("whoami").status == 1


def test_a_wrong_password_is_told_in_one_line_and_nothing_is_kept(home: Terminal, somebody: str) -> None:
    done = home("login", "--email", somebody, "--password-stdin", stdin="not it at all\n")
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "not it at all" not in done.err
    assert "STRONGROOM_API_KEY" not in done.err
    assert not profile(home).exists()


def test_a_made_up_password_must_be_changed(strongroom: Terminal, home: Terminal) -> None:
    made_up = strongroom("users", "create", "forced@example.org", "--role", "viewer").out.strip()
    refused = home("login", "--email", "forced@example.org", "--password-stdin", stdin=f"{made_up}\n")
    assert refused.status == 1
    assert "must be changed" in refused.err
    assert not profile(home).exists()
    done = home("login", "--email", "forced@example.org", "--password-stdin", stdin=f"{made_up}\n{PASSWORD}\n")
    assert done.status == 0, done.err
    assert home("whoami", "--json").json["role"] == "viewer"


def test_a_terminal_asks_without_showing_what_is_typed(stack: Stack, strongroom: Terminal, tmp_path: Path) -> None:
    created = strongroom("users", "create", "asked@example.org", "--role", "viewer")
    assert created.status == 0, created.err
    made_up = created.out.strip()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
    environment = kept | {"XDG_CONFIG_HOME": str(tmp_path)}
    command = [str(STRONGROOM), "login", "--email", "asked@example.org"]
    dialogue = Dialogue(command, environment)
    dialogue.answer("Address", stack.url)
    dialogue.answer("Password: ", made_up)
    dialogue.answer("New password: ", PASSWORD)
    dialogue.answer("confirmation: ", PASSWORD)
    status, shown = dialogue.end()
    assert status == 0, shown
    assert "your password must be changed" in shown
    assert made_up not in shown
    assert PASSWORD not in shown
    assert "asked@example.org" in Terminal(stack.url, "", home=str(tmp_path))("whoami").out


def test_a_key_in_the_environment_goes_first_and_login_says_so(home: Terminal, somebody: str, stack: Stack) -> None:
    arguments = ("login", "--email", somebody, "--password-stdin")
    assert "unset" not in home(*arguments, stdin=f"{PASSWORD}\n").err
    done = home(*arguments, stdin=f"{PASSWORD}\n", STRONGROOM_API_KEY=stack.admin_key)
    assert done.status == 0
    assert done.err.endswith("to use this profile: unset STRONGROOM_API_KEY\n")


def test_passwd_changes_the_password_and_keeps_this_session(home: Terminal, somebody: str, stack: Stack) -> None:
    home("login", "--email", somebody, "--password-stdin", stdin=f"{PASSWORD}\n")
    with Client(stack.url) as elsewhere:
        elsewhere.sessions.sign_in(somebody, PASSWORD)
        wrong = home("passwd", "--password-stdin", stdin=f"wrong\n{OTHER}\n")
        assert wrong.status == 1
        done = home("passwd", "--password-stdin", stdin=f"{PASSWORD}\n{OTHER}\n")
        assert done.status == 0, done.err
        assert home("whoami").status == 0
        with pytest.raises(Unauthenticated):
            elsewhere.tokens.caller()
    with Client(stack.url) as client, pytest.raises(Unauthenticated):
        client.sessions.sign_in(somebody, PASSWORD)


def test_logout_ends_the_session_and_forgets_it(home: Terminal, somebody: str, stack: Stack) -> None:
    home("login", "--email", somebody, "--password-stdin", stdin=f"{PASSWORD}\n")
    copied = profile(home).read_text()
    assert home("logout").out == f"signed out of {stack.url}\n"
    assert json.loads(profile(home).read_text())["session"] is None
    assert home("whoami").status == 1
    profile(home).write_text(copied)
    assert home("whoami").status == 1


def test_logout_everywhere(home: Terminal, somebody: str, stack: Stack) -> None:
    with Client(stack.url) as elsewhere:
        elsewhere.sessions.sign_in(somebody, PASSWORD)
        home("login", "--email", somebody, "--password-stdin", stdin=f"{PASSWORD}\n")
        assert len(elsewhere.sessions.list()) == 2
        assert home("logout", "--everywhere").out == f"signed out of {stack.url}: 2 sessions ended\n"
        with pytest.raises(Unauthenticated):
            elsewhere.tokens.caller()


def test_logout_forgets_a_key(home: Terminal, stack: Stack) -> None:
    home("login", stdin=f"{stack.admin_key}\n")
    assert home("whoami").status == 0
    assert home("logout", "--everywhere").status == 1
    assert home("logout").out == f"forgot the key for {stack.url}\n"
    assert stack.admin_key not in profile(home).read_text()
    assert home("logout").out == "nobody was logged in\n"


def test_the_library_signs_in_and_acts_as_the_user(stack: Stack, somebody: str) -> None:
    store = MemoryStore()
    with Client(stack.url, session=store) as client:
        with pytest.raises(StrongroomError):
            client.tokens.caller()
        signed_in = client.sessions.sign_in(somebody, PASSWORD)
        assert signed_in.role == "researcher"
        assert client.tokens.caller().principal == signed_in.principal
        assert [session.is_current for session in client.sessions.list()] == [True]
        client.sessions.sign_out()
        assert store.load() is None
        with pytest.raises(Unauthenticated):
            client.tokens.caller()


def test_a_password_that_must_be_changed_is_told_to_programs(stack: Stack) -> None:
    with Client(stack.url, api_key=stack.admin_key) as admin, Client(stack.url) as client:
        made = admin.users.create("program@example.org", role="viewer")
        assert made.password not in repr(made)
        with pytest.raises(FailedPrecondition) as caught:
            client.sessions.sign_in("program@example.org", made.password)
        assert caught.value.reason == "PASSWORD_EXPIRED"
        client.sessions.sign_in("program@example.org", made.password, new_password=PASSWORD)
        assert client.tokens.caller().role == "viewer"


def test_many_threads_share_a_session_whose_token_ends(stack: Stack, somebody: str) -> None:
    store = MemoryStore()
    with Client(stack.url, session=store) as client:
        client.sessions.sign_in(somebody, PASSWORD)
        for _renewal in range(3):
            tokens = store.load()
            assert tokens is not None
            store.save(replace(tokens, renew_at=time.time() - 1))
            with Client(stack.url, session=store) as other, ThreadPoolExecutor(8) as threads:
                names = list(threads.map(lambda _call: other.tokens.caller().name, range(16)))
            assert names == [somebody] * 16
            renewed = store.load()
            assert renewed is not None
            assert renewed.refresh_token != tokens.refresh_token
