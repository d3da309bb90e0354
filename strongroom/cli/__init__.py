"""The command line: `strongroom`."""

import typer

from strongroom.cli import admin, keys, models, secrets, serve, up
from strongroom.cli.session import interrupted

app = typer.Typer(
    no_args_is_help=True,
    # A traceback would show local variables, and with them keys.
    pretty_exceptions_enable=False,
    help="Models, the secrets they need and the keys that open them. STRONGROOM_URL and STRONGROOM_API_KEY say where "
    "and who; `strongroom login` keeps them.",
)
for command in (models.push, models.pull, models.ls, models.show, models.verify, models.rm):
    app.command()(command)
app.add_typer(secrets.app, name="secrets")
app.add_typer(keys.app, name="keys")
app.command()(admin.login)
app.command()(admin.status)
app.add_typer(admin.app, name="admin")
app.command("up")(up.command)
app.add_typer(serve.app, name="serve")
app.command("gateway")(serve.gateway)


def main() -> None:
    """The entry point of the `strongroom` command."""
    try:
        app()
    except KeyboardInterrupt:
        interrupted()
