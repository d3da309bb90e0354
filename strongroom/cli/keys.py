"""`strongroom keys`: create, list, show, revoke, sets."""

import sys
from typing import Annotated, Any

import typer

from strongroom.cli.session import Json, as_json, connected, misused, moment, print_json, print_message, print_table

app = typer.Typer(help="Create and revoke API keys.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `strongroom keys list`.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    permission_set: Annotated[str, typer.Option(help="One of `strongroom keys sets`.")] = "",
    permission: Annotated[
        list[str] | None, typer.Option(help="A permission such as models.read; may be repeated.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="Limit the key to resources, such as secrets/prod/*; may be repeated.")
    ] = None,
    description: Annotated[str, typer.Option(help="More about it.")] = "",
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=3650, help="Days until it expires.")] = None,
    json: Json = False,
) -> None:
    """Create a key. It is shown once, now.

    Example: strongroom keys create ci --permission-set read_only --scope 'managers/default/**'
    """
    if bool(permission_set) == bool(permission):
        misused("give --permission-set, or --permission once or more")
    with connected() as client:
        key = client.keys.create(
            name,
            permission_set=permission_set,
            permissions=permission or [],
            scopes=scope or [],
            description=description,
            expires_in_days=expires_in_days,
        )

    def for_people() -> None:
        if sys.stdout.isatty():
            typer.echo(
                f"id      {key.id}\nmay     {', '.join(key.permissions)} on {', '.join(key.scopes) or 'everything'}"
            )
            typer.echo("key     (shown this once: keep it now)")
        typer.echo(key.key)

    print_message(key, for_people, as_json_document=json)


@app.command("list")
def list_keys(
    active: Annotated[bool, typer.Option("--active", help="Leave out revoked and expired keys.")] = False,
    json: Json = False,
) -> None:
    """List keys, newest first."""
    with connected() as client:
        keys = list(client.keys.list(active_only=active))
    if json:
        print_json({"api_keys": [as_json(key) for key in keys], "next_page_token": ""})
    else:
        rows = [[key.id, key.key_prefix, key.name, _may(key), _state(key), moment(key.last_used_at)] for key in keys]
        print_table(["id", "prefix", "name", "may", "state", "last used"], rows)


@app.command()
def show(key_id: Id, json: Json = False) -> None:
    """Show a key, without its secret."""
    with connected() as client:
        key = client.keys.show(key_id)

    def for_people() -> None:
        rows = [
            ["id", key.id],
            ["name", key.name],
            ["description", key.description],
            ["prefix", key.key_prefix],
            ["may", _may(key)],
            ["scopes", ", ".join(key.scopes) or "everything"],
            ["state", _state(key)],
            ["created", f"{moment(key.created_at)} by {key.created_by}"],
            ["expires", moment(key.expires_at) or "never"],
            ["last used", moment(key.last_used_at) or "never"],
            ["requests", f"{key.usage_count:.0f}"],
        ]
        print_table(["", ""], rows)

    print_message(key, for_people, as_json_document=json)


@app.command()
def revoke(key_id: Id, json: Json = False) -> None:
    """Revoke a key: it fails at the next request."""
    with connected() as client:
        key = client.keys.revoke(key_id)
    print_message(key, lambda: typer.echo(f"revoked {key.name} ({key.id})"), as_json_document=json)


@app.command()
def sets(json: Json = False) -> None:
    """List the permission sets."""
    with connected() as client:
        sets = client.keys.sets()
    if json:
        print_json({"permission_sets": [as_json(item) for item in sets]})
    else:
        rows = [[item.name, ", ".join(item.permissions), item.description] for item in sets]
        print_table(["set", "permissions", ""], rows)


def _may(key: Any) -> str:
    return key.permission_set or ", ".join(key.permissions)


def _state(key: Any) -> str:
    if key.is_active:
        return "active"
    return "revoked" if key.HasField("revoked_at") else "expired"
