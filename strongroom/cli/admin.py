"""`login`, `status`, `admin gc`: the installation and the caller's way to it."""

import sys
from typing import Annotated

import typer

from strongroom.cli.session import Json, as_json, connected, human_size, print_json, print_message

app = typer.Typer(help="Look after the installation.", no_args_is_help=True)


def login(
    url: Annotated[
        str | None, typer.Option(envvar="STRONGROOM_URL", help="Address of Strongroom; asked for if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Keep address and key in a profile that only you can read.

    The key is asked for, or read from standard input: on a command line others could see it.
    """
    from strongroom import profiles
    from strongroom.connection import DEFAULT_URL

    if sys.stdin.isatty():
        url = url or typer.prompt("Address", default=DEFAULT_URL)
        key = typer.prompt("API key", hide_input=True)
    else:
        key = sys.stdin.readline()
    profile = profiles.Profile(url or DEFAULT_URL, key.strip())
    with connected(profile) as client:
        caller = client.admin.caller()
        kept = profiles.save(profile)
    line = f"logged in to {profile.url} as {caller.name or caller.principal}; kept in {kept}"
    print_message(caller, lambda: typer.echo(line), as_json_document=json)


def status(json: Json = False) -> None:
    """Say whether Strongroom works, and who you are to it."""
    from strongroom.profiles import current

    with connected() as client:
        health = client.admin.health()
        caller = client.admin.caller()
    if json:
        print_json({"health": as_json(health), "caller": as_json(caller)})
        return
    parts = ", ".join(f"{name} {state}" for name, state in sorted(health.checks.items()))
    typer.echo(f"{current().url} is {health.status}: {parts}; version {health.version}")
    typer.echo(f"you are {caller.name} ({caller.principal}, key {caller.key_prefix}…)")
    for grant in caller.grants:
        typer.echo(f"  {grant.effect} {', '.join(grant.permissions)} on {', '.join(grant.resources)}")


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    min_age: Annotated[int | None, typer.Option(min=0, help="Leave alone what is younger, in seconds.")] = None,
    json: Json = False,
) -> None:
    """Remove from the stores what nothing refers to. The models service does this by itself every hour."""
    with connected() as client:
        report = client.admin.collect_garbage(dry_run=dry_run, min_age_seconds=min_age)
    removed = (
        f"{report.expired_uploads} uploads, {report.deleted_chunks} chunks, {report.deleted_packs} packs, "
        f"{report.deleted_manifests} manifests, {report.deleted_temporary_files} temporary files, "
        f"{report.destroyed_keys} keys; {human_size(report.freed_bytes)}"
    )
    line = f"{'would remove' if dry_run else 'removed'} {removed}"
    print_message(report, lambda: typer.echo(line), as_json_document=json)
