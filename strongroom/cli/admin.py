"""`strongroom admin`: stores, garbage, signing keys, the root key and backups."""

from typing import Annotated

import typer

from strongroom.cli import admin_keys, admin_stores, backup
from strongroom.cli.session import (
    Json,
    as_json,
    connected,
    human_size,
    moment,
    print_json,
    print_message,
    print_table,
)

app = typer.Typer(help="Look after the installation.", no_args_is_help=True)
for command in (admin_stores.stores, admin_stores.sync, admin_stores.rebuild, backup.backup, backup.restore):
    app.command()(command)
signing_keys = typer.Typer(help="The keys that sign access tokens.", no_args_is_help=True)
app.add_typer(signing_keys, name="signing-keys")
app.add_typer(admin_keys.app, name="root-key")


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


@signing_keys.command("list")
def list_signing_keys(json: Json = False) -> None:
    """List the keys that sign tokens, the newest first, without their private parts."""
    with connected() as client:
        keys = client.tokens.signing_keys()
    if json:
        print_json({"signing_keys": [as_json(key) for key in keys]})
    else:
        rows = [
            [key.kid, key.state, moment(key.created_at), moment(key.signs_from), moment(key.published_until)]
            for key in keys
        ]
        print_table(["key id", "state", "created", "signs from", "published until"], rows)


@signing_keys.command("rotate")
def rotate_signing_key(json: Json = False) -> None:
    """Make a new signing key. It signs once every verifier has had the time to fetch it: no request fails."""
    with connected() as client:
        key = client.tokens.rotate_signing_key()
    line = f"made {key.kid}; it signs from {moment(key.signs_from)} on"
    print_message(key, lambda: typer.echo(line), as_json_document=json)
