"""`strongroom admin root-key`: where the key is under which every other key is kept."""

from typing import Annotated

import typer

from strongroom.cli.session import Json, connected, counted, moment, print_message, print_table

app = typer.Typer(help="The root key, under which every other key is kept.", no_args_is_help=True)


@app.command()
def show(json: Json = False) -> None:
    """Show which root key is in use. More than one line: a move is not at its end."""
    with connected() as client:
        shown = client.root_key.show()

    def for_people() -> None:
        rows = [
            [str(one.generation), one.name, one.kind, one.place, moment(one.created_at), str(one.keks)]
            for one in shown.generations
        ]
        print_table(["generation", "root key", "kind", "place", "since", "keys under it"], rows)
        typer.echo(f"configured: {', '.join(shown.configured)}")

    print_message(shown, for_people, as_json_document=json)


@app.command()
def move(
    name: Annotated[str, typer.Argument(help="A root key of STRONGROOM_KMS, or `file`.")],
    json: Json = False,
) -> None:
    """Move to another root key while everything is in use, or go on with a move that was interrupted.

    Moving to the one in use makes a new key under it. Example: strongroom admin root-key move vault
    """
    with connected() as client:
        done = client.root_key.move(name)
    line = f"moved to {done.name}, generation {done.generation}: {counted(done.rewrapped, 'key')} wrapped anew"
    print_message(done, lambda: typer.echo(line), as_json_document=json)
