"""`strongroom admin stores`, `sync`, `rebuild`: where weights are kept."""

from typing import Annotated, Any

import typer

from strongroom.cli.session import (
    Json,
    complain,
    connected,
    counted,
    human_size,
    moment,
    print_message,
    print_table,
)

Names = Annotated[list[str] | None, typer.Argument(metavar="[STORE]...", help="Names of stores; all if none is given.")]


def stores(json: Json = False) -> None:
    """Show every store: whether it answers, and how far it is behind."""
    with connected() as client:
        shown = client.stores.show()

    def for_people() -> None:
        rows = [
            [store.name, store.kind, store.role, _state(store), _lag(store), moment(store.synced_at), store.error]
            for store in shown.stores
        ]
        print_table(["store", "kind", "role", "state", "behind", "complete at", "error"], rows)
        if shown.index_problem:
            complain(shown.index_problem, 1)

    print_message(shown, for_people, as_json_document=json)


def sync(
    names: Names = None,
    wait: Annotated[bool, typer.Option(help="Return once nothing is lacking any more.")] = True,
    json: Json = False,
) -> None:
    """Compare what stores have with what they shall have, and copy what they lack. Happens daily by itself."""
    with connected() as client:
        answer: Any = client.stores.sync(*(names or ()))
        if wait:
            done = client.stores.wait(*(names or ()))
            del answer.stores[:]
            answer.stores.extend(done)

    def for_people() -> None:
        for store in answer.stores:
            typer.echo(f"{store.name}: {_state(store)}, {_lag(store) or 'complete'}")

    print_message(answer, for_people, as_json_document=json)
    if wait and any(not store.healthy or store.pending_objects for store in answer.stores):
        raise typer.Exit(1)


def rebuild(
    store: Annotated[str, typer.Option(help="Read this store alone; all if not given.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be found.")] = False,
    accept_losses: Annotated[
        bool, typer.Option("--accept-losses", help="Trust the index even if versions could not be added.")
    ] = False,
    include_unencrypted: Annotated[
        bool, typer.Option("--include-unencrypted", help="Add what nothing proves the origin of.")
    ] = False,
    json: Json = False,
) -> None:
    """Make the index anew from what the stores hold, after the database was lost or restored from a backup."""
    with connected() as client:
        found = client.stores.rebuild(
            store=store, dry_run=dry_run, accept_losses=accept_losses, include_unencrypted=include_unencrypted
        )

    def for_people() -> None:
        added = f"{'would add' if dry_run else 'added'} {counted(found.versions_added, 'version')}"
        known = f"{found.versions_known} known, {counted(found.packs_found, 'pack')}, {human_size(found.bytes_found)}"
        typer.echo(f"{added}; {known}")
        if found.versions_added:
            typer.echo(f"not in any store, so not restored: {', '.join(found.not_restored)}")
        for problem in found.problems:
            complain(problem, 1)
        if not found.trusted and not dry_run:
            complain("the index is not trusted yet, so nothing is collected: mend this, or use --accept-losses", 1)

    print_message(found, for_people, as_json_document=json)
    if not found.trusted and not dry_run:
        raise typer.Exit(1)


def _state(store: Any) -> str:
    if not store.healthy:
        return "down"
    return "comparing" if store.repairing else "up"


def _lag(store: Any) -> str:
    """Empty if it lacks nothing."""
    if not store.pending_objects:
        return ""
    return f"{counted(store.pending_objects, 'object')}, {store.lag_seconds:.0f} s"
