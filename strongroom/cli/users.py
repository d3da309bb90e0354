"""`strongroom users`: create, list, show, update, delete, reset-password, sign-out, roles."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.cli import completion, notation
from strongroom.cli.session import (
    Json,
    as_json,
    confirmed,
    connected,
    counted,
    fail,
    misused,
    moment,
    print_json,
    print_message,
    print_table,
    say,
)

if TYPE_CHECKING:
    from strongroom.client import Client
    from strongroom.client.users import NewUser

app = typer.Typer(help="Keep the people who may sign in.", no_args_is_help=True)

Who = Annotated[str, typer.Argument(metavar="USER", help="The user's id or e-mail address.")]


@app.command()
def create(
    email: Annotated[str, typer.Argument(help="The address to sign in with.")],
    role: Annotated[str, typer.Option(help="One of `strongroom users roles`.", autocompletion=completion.roles)],
    name: Annotated[str, typer.Option(help="How the person is called.")] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    json: Json = False,
) -> None:
    """Create a user. A password is made up and shown once, now; it must be changed at the first sign-in.

    Example: strongroom users create ada@example.org --role researcher --name 'Ada Lovelace'
    """
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else ""
    if password_stdin and not password:
        misused("no password on standard input")
    with connected() as client:
        user = client.users.create(email, role=role, name=name, password=password)
    _show_new(user, json=json)


@app.command("list")
def list_users(
    active: Annotated[bool, typer.Option("--active", help="Leave out those who may not sign in.")] = False,
    json: Json = False,
) -> None:
    """List users by e-mail address."""
    with connected() as client:
        users = list(client.users.list(active_only=active))
    if json:
        print_json({"users": [as_json(user) for user in users], "next_page_token": ""})
    else:
        rows = [
            [user.id, user.email, user.name, user.role, _state(user), moment(user.last_sign_in_at)] for user in users
        ]
        print_table(["id", "e-mail", "name", "role", "state", "last sign-in"], rows)


@app.command()
def show(user: Who, json: Json = False) -> None:
    """Show a user."""
    with connected() as client:
        found = client.users.get(_id(client, user))

    def for_people() -> None:
        rows = [
            ["id", found.id],
            ["e-mail", found.email],
            ["name", found.name],
            ["role", found.role],
            ["state", _state(found)],
            ["created", f"{moment(found.created_at)} by {found.created_by}"],
            ["last sign-in", moment(found.last_sign_in_at) or "never"],
        ]
        print_table(["", ""], rows)

    print_message(found, for_people, as_json_document=json)


@app.command()
def update(
    user: Who,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    role: Annotated[str | None, typer.Option(help="A new role.", autocompletion=completion.roles)] = None,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="Whether the user may sign in; if not, keys end too.")
    ] = None,
    json: Json = False,
) -> None:
    """Change name, role or whether the user may sign in. The user's sessions end with a new role.

    Example: strongroom users update ada@example.org --role analyst
    """
    if name is None and role is None and active is None:
        misused("give --name, --role, --active or --inactive")
    with connected() as client:
        changed = client.users.update(_id(client, user), name=name, role=role, is_active=active)
    line = f"{changed.email} is {changed.role}, {_state(changed)}"
    print_message(changed, lambda: say(line), as_json_document=json)


@app.command()
def delete(
    user: Who, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False, json: Json = False
) -> None:
    """Delete a user, end the sessions and revoke the keys."""
    confirmed(f"Delete {user} and revoke the user's keys?", yes=yes)
    with connected() as client:
        gone = client.users.delete(_id(client, user))
    line = f"deleted {user}: {counted(gone.revoked_keys, 'key')} revoked"
    print_message(gone, lambda: say(line), as_json_document=json)


@app.command("reset-password")
def reset_password(user: Who, json: Json = False) -> None:
    """Make up a new password, shown once, now, and end the user's sessions."""
    with connected() as client:
        changed = client.users.reset_password(_id(client, user))
    _show_new(changed, json=json)


@app.command("sign-out")
def sign_out(user: Who, json: Json = False) -> None:
    """End all sessions of a user."""
    with connected() as client:
        ended = client.users.sign_out(_id(client, user))
    line = f"signed out {user}: {counted(ended.ended_sessions, 'session')} ended"
    print_message(ended, lambda: say(line), as_json_document=json)


@app.command()
def roles(json: Json = False) -> None:
    """List the roles, and what each may do."""
    with connected() as client:
        roles = client.users.roles()
    if json:
        print_json({"roles": [as_json(role) for role in roles]})
    else:
        rows = [[role.name, "; ".join(map(notation.spelled, role.grants)), role.description] for role in roles]
        print_table(["role", "may", ""], rows)


def _id(client: "Client", user: str) -> str:
    """The id behind an e-mail address; an id is its own."""
    if "@" not in user:
        return user
    # Listings are by e-mail address, and installations of more users than fit a few pages are rare.
    found = next((item.id for item in client.users.list() if item.email.casefold() == user.casefold()), None)
    return found or fail(f"there is no user {user}")


def _show_new(user: "NewUser", *, json: bool) -> None:
    """With the made-up password: alone where it goes to a script, explained on a terminal."""
    if json:
        print_json(as_json(user.about) | ({"password": user.password} if user.password else {}))
    elif not user.password:
        say(f"created {user.email} ({user.id})")
    elif sys.stdout.isatty():
        say(f"user      {user.email} ({user.id}), {user.about.role}")
        say("password  (shown this once: pass it on now)")
        typer.echo(user.password)
    else:
        typer.echo(user.password)


def _state(user: Any) -> str:
    if not user.is_active:
        return "inactive"
    return "active, must change password" if user.must_change_password else "active"
