"""`login`, `logout`, `passwd`, `whoami`, `status`: the caller, and its way to Strongroom."""

import os
import sys
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from strongroom.cli import notation
from strongroom.cli.session import (
    Json,
    OwnJson,
    as_json,
    complain,
    connected,
    counted,
    fail,
    failing_in_one_line,
    is_here,
    misused,
    print_json,
    print_message,
    say,
)

if TYPE_CHECKING:
    from strongroom.auth.v1.info_pb2 import GetHealthResponse
    from strongroom.auth.v1.tokens_pb2 import GetCallerResponse
    from strongroom.profiles import Profile

PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, a new one from the next line.")
]


def login(
    url: Annotated[
        str | None, typer.Option(envvar="STRONGROOM_URL", help="Address of Strongroom; asked for if not given.")
    ] = None,
    email: Annotated[
        str | None, typer.Option("--email", "-e", help="Sign in as a user; without it with an API key.")
    ] = None,
    password_stdin: PasswordStdin = False,
    ca_file: Annotated[
        str | None,
        typer.Option(envvar="STRONGROOM_CA_FILE", help="Authorities to believe about https: the server's ca.pem."),
    ] = None,
    json: OwnJson = False,
) -> None:
    """Keep address and key, or session, in a profile that only you can read.

    Key and password are asked for, or read from standard input: on a command line others could see them.

    Example: strongroom login --url https://strongroom.example.org --email ada@example.org
    """
    from strongroom.connection import DEFAULT_URL
    from strongroom.profiles import Profile

    terminal = sys.stdin.isatty()
    if password_stdin and email is None:
        misused("--password-stdin needs --email")
    if email is not None and not terminal and not password_stdin:
        misused("there is no terminal to ask on: give --password-stdin")
    if terminal and not password_stdin:
        url = url or typer.prompt("Address", default=DEFAULT_URL)
    # A profile outlives the folder that it was made in.
    where = Profile(url or DEFAULT_URL, ca_file=os.path.abspath(ca_file) if ca_file else "")  # noqa: PTH100
    if email is not None:
        _sign_in(where, email, _Passwords(from_stdin=password_stdin), json=json)
    else:
        key = typer.prompt("API key", hide_input=True) if terminal else sys.stdin.readline()
        _keep_key(replace(where, api_key=key.strip()), json=json)


def logout(
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="End all of your sessions, on other machines too.")
    ] = False,
    json: OwnJson = False,
) -> None:
    """Forget the key of the profile, or end its session."""
    with failing_in_one_line():
        from strongroom import profiles

        kept = profiles.kept()
        if kept.session is None and everywhere:
            fail("nobody is signed in with a password; to end an API key: strongroom keys revoke ID")
        # Here it ends whatever the server says.
        profiles.forget()
        ended = _end_session(kept, everywhere=everywhere) if kept.session is not None else 0
    if json:
        print_json({"ended_sessions": ended})
    elif kept.session is not None:
        say(f"signed out of {kept.url}" + (f": {counted(ended, 'session')} ended" if everywhere else ""))
    else:
        say(f"forgot the key for {kept.url}" if kept.api_key else "nobody was logged in")


def passwd(password_stdin: PasswordStdin = False, json: OwnJson = False) -> None:
    """Change your password. Your other sessions end.

    From standard input: the current password in the first line, the new one in the second.
    """
    if not password_stdin and not sys.stdin.isatty():
        misused("there is no terminal to ask on: give --password-stdin")
    passwords = _Passwords(from_stdin=password_stdin)
    with connected() as client:
        client.sessions.change_password(passwords.current("Current password"), passwords.new())
    print_json({}) if json else say("password changed; your other sessions have ended")


def whoami(json: Json = False) -> None:
    """Say who you are to Strongroom."""
    with connected() as client:
        caller = client.tokens.caller()
    print_message(caller, lambda: say(_identity(caller)), as_json_document=json)


def status(json: OwnJson = False) -> None:
    """Say whether Strongroom works and who you are to it; exit status 1 if a part does not."""
    from strongroom.errors import Unauthenticated, Unavailable
    from strongroom.profiles import current

    with connected() as client:
        try:
            health = client.admin.health()
        except Unavailable as error:
            if not error.reason:
                raise
            fail(f"{error.message} What to do says: strongroom doctor")
        url = current().url
        try:
            caller, limits = client.admin.caller_and_limits()
        except Unauthenticated as error:
            if not json:
                _print_health(url, health)
            raise error from None
    if json:
        document = {"health": as_json(health), "caller": as_json(caller), "client_version": version("strongroom")}
        print_json(document | {"rate_limit": limits})
        return
    _print_health(url, health)
    say(f"you are {_identity(caller)}")
    for grant in caller.grants:
        say(f"  {notation.spelled(grant)}")
    if limits:
        say(f"requests left: {limits.get('remaining', '?')} of {_most(limits)}")


def _most(limits: dict[str, str]) -> str:
    """`100 a minute`."""
    # Some gateways put the windows behind the limit: `100, 100;w=60`.
    limit, _, windows = limits.get("limit", "?").partition(",")
    seconds = (limits.get("policy") or windows).partition(";w=")[2]
    period = {"1": "second", "60": "minute", "3600": "hour"}.get(seconds, f"{seconds} s")
    return f"{limit} {'an' if period == 'hour' else 'a' if period.isalpha() else 'in'} {period}" if seconds else limit


class _Passwords:
    """Asks for passwords without showing them, or reads them from standard input, one a line."""

    def __init__(self, *, from_stdin: bool) -> None:
        self._from_stdin = from_stdin

    def current(self, question: str = "Password") -> str:
        """The password as it is."""
        if self._from_stdin:
            return self._line() or misused("no password on standard input")
        return str(typer.prompt(question, hide_input=True, err=True))

    def new(self) -> str:
        """The password as it shall be."""
        if self._from_stdin:
            return self._line() or fail("the password must be changed: give a new one in the second line")
        return str(typer.prompt("New password", hide_input=True, confirmation_prompt=True, err=True))

    def _line(self) -> str:
        return sys.stdin.readline().rstrip("\r\n")


def _warn_of_listeners(url: str) -> None:
    """Whoever listens on the way learns what is sent over plain HTTP."""
    if urlsplit(url).scheme == "http" and not is_here(url):
        complain(f"warning: {url} is not encrypted; others on the way can read what you send", 0)


def _sign_in(where: "Profile", email: str, passwords: _Passwords, *, json: bool) -> None:
    from strongroom import profiles
    from strongroom.errors import FailedPrecondition

    _warn_of_listeners(where.url)
    password = passwords.current()
    with connected(where, profiles.KeptSession(where.url, where.ca_file)) as client:
        try:
            client.sessions.sign_in(email, password)
        except FailedPrecondition as error:
            if error.reason != "PASSWORD_EXPIRED":
                raise
            if sys.stdin.isatty():
                complain("your password must be changed", 0)
            client.sessions.sign_in(email, password, new_password=passwords.new())
        caller = client.tokens.caller()
    _say_logged_in(where.url, caller, str(profiles.path()), json=json)


def _keep_key(profile: "Profile", *, json: bool) -> None:
    from strongroom import profiles

    _warn_of_listeners(profile.url)
    with connected(profile) as client:
        caller = client.tokens.caller()
        kept = profiles.save(profile)
    _say_logged_in(profile.url, caller, str(kept), json=json)


def _say_logged_in(url: str, caller: "GetCallerResponse", kept: str, *, json: bool) -> None:
    line = f"logged in to {url} as {caller.name or caller.principal}; kept in {kept}"
    print_message(caller, lambda: say(line), as_json_document=json)
    from strongroom import profiles

    for name in profiles.overriding():
        complain(f"warning: {name} is set and goes before what is kept; to use this profile: unset {name}", 0)


def _end_session(kept: "Profile", *, everywhere: bool) -> int:
    """How many sessions ended on the server."""
    from strongroom.client import Client
    from strongroom.session import MemoryStore

    store = MemoryStore()
    store.save(kept.session)
    with Client(kept.url, session=store, ca_file=kept.ca_file) as client:
        if everywhere:
            return client.sessions.sign_out_everywhere()
        client.sessions.sign_out()
        return 1


def _identity(caller: "GetCallerResponse") -> str:
    how = f"key {caller.key_prefix}…" if caller.key_prefix else f"role {caller.role}" if caller.role else "token"
    return f"{caller.name or caller.principal} ({caller.principal}, {how})"


def _print_health(url: str, health: "GetHealthResponse") -> None:
    parts = ", ".join(f"{name} {state}" for name, state in sorted(health.checks.items()))
    say(f"{url} is {health.status}: {parts}; version {health.version}, client {version('strongroom')}")
