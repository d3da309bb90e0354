"""`strongroom secrets providers`, `sync`, `drift`: where secrets are kept besides the embedded vault."""

from typing import Annotated, Any

import typer

from strongroom.cli.session import (
    Json,
    as_json,
    connected,
    counted,
    moment,
    print_json,
    print_message,
    print_table,
)

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[PROVIDER]...", help="Names of replicas; all if none is given.")
]
Wait = Annotated[bool, typer.Option(help="Return once it is done.")]


def providers(json: Json = False) -> None:
    """Show every provider: whether it answers, and how far a replica is behind."""
    with connected() as client:
        shown = client.providers.show()
    if json:
        print_json({"providers": [as_json(provider) for provider in shown]})
        return
    rows = [
        [each.name, each.kind, each.role, _state(each), _lag(each), _drift(each), moment(each.compared_at), each.error]
        for each in shown
    ]
    print_table(["provider", "kind", "role", "state", "behind", "drift", "compared at", "error"], rows)


def sync(names: Names = None, wait: Wait = True, json: Json = False) -> None:
    """Compare replicas with the primary, and make them the same. What only a replica has stays."""
    with connected() as client:
        answer: Any = client.providers.sync(*(names or ()))
        if wait:
            done = client.providers.wait(*(names or ()))
            del answer.providers[:]
            answer.providers.extend(done)
    shown = [provider for provider in answer.providers if provider.role == "replica"]

    def for_people() -> None:
        for provider in shown:
            told = ", ".join(filter(None, [_state(provider), _lag(provider), _drift(provider), provider.error]))
            typer.echo(f"{provider.name}: {told}")

    print_message(answer, for_people, as_json_document=json)
    if wait and any(not provider.healthy or provider.pending_secrets for provider in shown):
        raise typer.Exit(1)


def drift(names: Names = None, wait: Wait = True, json: Json = False) -> None:
    """Compare replicas with the primary, and tell where they differ. Changes nothing; `sync` does.

    Exit status 1 if they differ, or could not be compared.
    """
    with connected() as client:
        client.providers.sync(*(names or ()), compare_only=True)
        shown = client.providers.wait(*(names or ())) if wait else []
        found = list(client.providers.drift(*(names or ())))
    if json:
        print_json({"drift": [as_json(each) for each in found], "next_page_token": ""})
    else:
        print_table(
            ["provider", "name", "kind", "found"], [[d.provider, d.name, d.kind, moment(d.found_at)] for d in found]
        )
    if found or any(not provider.healthy or provider.comparing for provider in shown):
        raise typer.Exit(1)


def _state(provider: Any) -> str:
    if not provider.healthy:
        return "down"
    return "comparing" if provider.comparing else "up"


def _lag(provider: Any) -> str:
    """Empty if it has seen every change."""
    if not provider.pending_secrets:
        return ""
    return f"{counted(provider.pending_secrets, 'secret')}, {provider.lag_seconds:.0f} s"


def _drift(provider: Any) -> str:
    return counted(provider.drifted_secrets, "difference") if provider.drifted_secrets else ""
