"""`strongroom keys`: create, list, show, update, revoke, extend, rotate, sets, ages."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.cli import completion, key_wizard, notation
from strongroom.cli.session import (
    Json,
    as_json,
    confirmed,
    connected,
    misused,
    moment,
    print_json,
    print_message,
    print_table,
    say,
)

if TYPE_CHECKING:
    from strongroom.auth.v1.tokens_pb2 import Grant
    from strongroom.client import Client
    from strongroom.client.keys import NewKey

app = typer.Typer(help="Create, rotate and revoke API keys.", no_args_is_help=True)

Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="The key's id, from `strongroom keys list`.", autocompletion=completion.keys),
]
ActiveId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The key's id, from `strongroom keys list`.", autocompletion=completion.active_keys
    ),
]
Set = Annotated[
    str,
    typer.Option("--permission-set", help="One of `strongroom keys sets`.", autocompletion=completion.permission_sets),
]
Permissions = Annotated[
    list[str] | None,
    typer.Option(
        "--permission", help="A permission such as models.read; may be repeated.", autocompletion=completion.permissions
    ),
]
Scopes = Annotated[
    list[str] | None, typer.Option("--scope", help="Limit to resources, such as secrets/prod/*; may be repeated.")
]
Allows = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="'PERM[,PERM] on RES'", help="Allow something more; may be repeated."),
]
Denies = Annotated[
    list[str] | None,
    typer.Option("--deny", metavar="'PERM[,PERM] on RES'", help="Deny something, whatever else allows it."),
]
Quotas = Annotated[
    list[str] | None,
    typer.Option("--quota", metavar="CLASS=N/PERIOD", help="A limit such as upload=10/hour; may be repeated."),
]


@app.command()
def create(
    name: Annotated[str | None, typer.Argument(help="What the key is for; without it you are asked.")] = None,
    permission_set: Set = "",
    permission: Permissions = None,
    scope: Scopes = None,
    allow: Allows = None,
    deny: Denies = None,
    description: Annotated[str, typer.Option(help="More about it.")] = "",
    expires: Annotated[
        int | None, typer.Option("--expires", "--expires-in-days", min=1, max=3650, help="Days until it expires.")
    ] = None,
    quota: Quotas = None,
    owner: Annotated[str, typer.Option(help="Whose key it is, such as user:01J…; yours if not given.")] = "",
    json: Json = False,
) -> None:
    """Create a key. It is shown once, now. Without arguments, on a terminal, you are asked for everything.

    Example: strongroom keys create ci --permission-set read_only --scope 'managers/default/**' --expires 90

    Example: strongroom keys create release --permission-set training_pipeline --allow 'models.alias on managers/**'
    --deny 'models.alias on managers/*/models/*/aliases/champion' --quota upload=10/hour
    """
    if name is None:
        if permission_set or permission or scope or allow or deny or quota or not sys.stdin.isatty():
            misused("name the key: strongroom keys create NAME --permission-set SET")
        with connected() as client:
            _show_new(key_wizard.create(client), json=json)
        return
    if permission_set and permission:
        misused("give --permission-set or --permission, not both")
    if not (permission_set or permission or allow):
        misused("give --permission-set, --permission or --allow")
    quotas = [notation.quota(text) for text in quota or []]
    more = _grants(allow, deny)
    with connected() as client:
        may = _may_do(client, permission_set, permission or [], scope or [], more)
        key = client.keys.create(
            name, description=description, expires_in_days=expires, quotas=quotas, owner=owner, **may
        )
        _show_new(key, json=json)


@app.command("list")
def list_keys(
    active: Annotated[bool, typer.Option("--active", help="Leave out revoked and expired keys.")] = False,
    owner: Annotated[str, typer.Option(help="Only keys of this owner, such as user:01J….")] = "",
    json: Json = False,
) -> None:
    """List keys, newest first."""
    with connected() as client:
        keys = list(client.keys.list(active_only=active, owner=owner))
    if json:
        print_json({"api_keys": [as_json(key) for key in keys], "next_page_token": ""})
    else:
        rows = [[key.id, key.key_prefix, key.name, _may(key), _state(key), moment(key.last_used_at)] for key in keys]
        print_table(["id", "prefix", "name", "may", "state", "last used"], rows)


@app.command()
def show(key_id: Id, json: Json = False) -> None:
    """Show a key, without its secret."""
    with connected() as client:
        key = client.keys.get(key_id)
    print_message(key, lambda: print_table(["", ""], _described(key)), as_json_document=json)


@app.command()
def update(
    key_id: ActiveId,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    description: Annotated[str | None, typer.Option(help="A new description.")] = None,
    permission_set: Set = "",
    permission: Permissions = None,
    scope: Scopes = None,
    allow: Allows = None,
    deny: Denies = None,
    quota: Quotas = None,
    clear_quotas: Annotated[bool, typer.Option("--clear-quotas", help="Remove all quotas first.")] = False,
    json: Json = False,
) -> None:
    """Change what is given and leave the rest. What the key may do is replaced as a whole.

    Example: strongroom keys update 01J… --permission-set predict --scope 'managers/fraud/**'
    """
    if permission_set and permission:
        misused("give --permission-set or --permission, not both")
    if deny and not (permission_set or permission or allow):
        misused("--deny alone leaves nothing: give --permission-set, --permission or --allow as well")
    quotas = [notation.quota(text) for text in quota or []]
    more = _grants(allow, deny)
    with connected() as client:
        may = _may_do(client, permission_set, permission or [], scope or [], more)
        key = client.keys.update(
            key_id, name=name, description=description, quotas=quotas, clear_quotas=clear_quotas, **may
        )
    print_message(key, lambda: print_table(["", ""], _described(key)), as_json_document=json)


@app.command()
def revoke(
    key_id: ActiveId,
    cascade: Annotated[bool, typer.Option("--cascade", help="The keys made with it as well.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, if it is the key that you use.")] = False,
    json: Json = False,
) -> None:
    """Revoke a key: it fails at the next request."""
    with connected() as client:
        if not yes and client.tokens.caller().principal == f"key:{key_id}":
            question = "You use this key. Nobody may get in any more, unless there is another administrator. Revoke it?"
            confirmed(question, yes=yes, otherwise="nothing was revoked")
        key = client.keys.revoke(key_id, cascade=cascade)
    with_others = " and the keys made with it" if cascade else ""
    line = f"revoked {key.name} ({key.id}){with_others}"
    print_message(key, lambda: say(line), as_json_document=json)


@app.command()
def extend(
    key_id: Id,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How many days longer it lives.")],
    json: Json = False,
) -> None:
    """Let a key live longer: from its expiry, or from now if that has passed.

    Example: strongroom keys extend 01J… --days 90
    """
    with connected() as client:
        key = client.keys.extend(key_id, days)
    line = f"{key.name} ({key.id}) now expires {moment(key.expires_at)}"
    print_message(key, lambda: say(line), as_json_document=json)


@app.command()
def rotate(
    key_id: ActiveId,
    grace: Annotated[str, typer.Option(help="How long the secret before works on: 1d, 12h, 30m, 0.")] = "1d",
    json: Json = False,
) -> None:
    """Give a key a new secret, shown once, now. The one before works on for the grace period.

    Example: strongroom keys rotate 01J… --grace 12h
    """
    grace_seconds = notation.seconds("--grace", grace)
    with connected() as client:
        _show_new(client.keys.rotate(key_id, grace_seconds=grace_seconds), json=json)


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


@app.command()
def ages(
    max_age: Annotated[int, typer.Option(min=1, max=3650, help="Days after which a secret should be rotated.")] = 90,
    json: Json = False,
) -> None:
    """Tell how old the secrets of all active keys are, the oldest first.

    Example: strongroom keys ages --max-age 180
    """
    with connected() as client:
        report = client.keys.ages(max_age_days=max_age)

    def for_people() -> None:
        rows = [
            [key.id, key.key_prefix, key.name, key.owner, f"{key.age_days} d", key.status, moment(key.last_used_at)]
            for key in report.keys
        ]
        print_table(["id", "prefix", "name", "owner", "age", "status", "last used"], rows)
        if sys.stdout.isatty():
            say(f"{report.overdue} of {report.total} older than {report.max_age_days} days")

    print_message(report, for_people, as_json_document=json)


def _grants(allow: list[str] | None, deny: list[str] | None) -> "list[Grant]":
    allowed = [notation.grant("allow", text) for text in allow or []]
    return allowed + [notation.grant("deny", text) for text in deny or []]


def _may_do(
    client: "Client", permission_set: str, permissions: list[str], scopes: list[str], more: "list[Grant]"
) -> dict[str, Any]:
    """What the key may do, as the request takes it: a set, permissions, or, if lines were added to them, grants."""
    if not more:
        return {"permission_set": permission_set, "permissions": permissions, "scopes": scopes}
    from strongroom.auth.v1.tokens_pb2 import Grant

    if permission_set:
        named = {item.name: item.permissions for item in client.keys.sets()}
        if permission_set not in named:
            misused(f"there is no permission set {permission_set}; there are: {', '.join(named)}")
        permissions = list(named[permission_set])
    if not permissions and scopes:
        misused("--scope limits --permission-set and --permission; --allow and --deny name their own resources")
    base = [Grant(effect="allow", permissions=permissions, resources=scopes)] if permissions else []
    return {"grants": base + more}


def _show_new(new: "NewKey", *, json: bool) -> None:
    """The whole key: alone where it goes to a script, explained on a terminal."""
    if json:
        print_json(as_json(new.about) | {"key": new.key})
        return
    if sys.stdout.isatty():
        say(f"id      {new.id}")
        for line in new.about.grants:
            say(f"may     {notation.spelled(line)}")
        say(f"expires {moment(new.about.expires_at) or 'never'}")
        say("key     (shown this once: keep it now)")
    typer.echo(new.key)


def _described(key: Any) -> list[list[str]]:
    rows = [
        ["id", key.id],
        ["name", key.name],
        ["description", key.description],
        ["prefix", key.key_prefix],
        ["owner", key.owner],
        ["may", _may(key)],
        *(["grant", notation.spelled(line)] for line in key.grants),
        *(["quota", f"{item.usage_class}: {item.requests} per {item.per}"] for item in key.quotas),
        *([["scopes", ", ".join(key.scopes) or "everything"]] if key.permissions else []),
        ["state", _state(key)],
        ["created", f"{moment(key.created_at)} by {key.created_by}"],
        ["expires", moment(key.expires_at) or "never"],
        ["last used", moment(key.last_used_at) or "never"],
        ["requests", f"{key.usage_count:.0f}"],
    ]
    return rows + [["version", _version(item)] for item in key.versions]


def _version(item: Any) -> str:
    if item.is_active:
        until = f", works until {moment(item.expires_at)}" if item.HasField("expires_at") else ""
    else:
        until = ", no longer works"
    return f"{item.version} ({item.key_prefix}…) of {moment(item.created_at)}{until}"


def _may(key: Any) -> str:
    return key.permission_set or ", ".join(key.permissions) or "custom grants"


def _state(key: Any) -> str:
    if key.is_active:
        return "active"
    return "revoked" if key.HasField("revoked_at") else "expired"
