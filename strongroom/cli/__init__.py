"""The command line: `strongroom`."""

import typer

from strongroom.cli import serve, up

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command("up")(up.command)
app.command("gateway")(serve.gateway)
app.add_typer(serve.app, name="serve")


def main() -> None:
    """The entry point of the `strongroom` command."""
    app()
