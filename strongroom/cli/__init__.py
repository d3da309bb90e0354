"""The command line: `strongroom`."""

import os
import sys
from collections.abc import Callable

import typer

from strongroom.cli import (
    access,
    account,
    admin,
    artifacts,
    audit,
    catalog,
    completion,
    configs,
    doctor,
    jobs,
    keys,
    managers,
    models,
    pki,
    prepare,
    rotate,
    run,
    secret_rotation,
    secrets,
    serve,
    train,
    up,
    usage,
    users,
)
from strongroom.cli.session import complain

app = typer.Typer(
    no_args_is_help=True,
    # A traceback would show local variables, and with them keys.
    pretty_exceptions_enable=False,
    # Help as plain text: loading what draws boxes would take longer than most commands do.
    rich_markup_mode=None,
    help="Models, the secrets they need and the keys that open them. STRONGROOM_URL and STRONGROOM_API_KEY say where "
    "and who; `strongroom login` keeps them.",
)
_COMMANDS: tuple[Callable[..., None], ...] = (
    *(models.push, models.pull, models.ls, models.show, models.verify, models.rm),
    rotate.rotate,
    *(catalog.alias, catalog.stage, catalog.tag, catalog.card, catalog.lineage, catalog.search),
    *(train.train, train.predict),
    *(account.login, account.logout, account.passwd, account.whoami, account.status, doctor.doctor),
)
for command in _COMMANDS:
    app.command()(command)
secrets.app.add_typer(secret_rotation.app, name="rotation")
secrets.app.command("rotate")(secret_rotation.rotate)
app.add_typer(secrets.app, name="secrets")
# What follows the command's name belongs to it.
app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(run.run)
app.add_typer(keys.app, name="keys")
app.add_typer(managers.app, name="managers")
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(configs.app, name="configs")
app.add_typer(jobs.app, name="jobs")
app.add_typer(users.app, name="users")
app.add_typer(audit.app, name="audit")
app.add_typer(access.app, name="access")
app.add_typer(usage.app, name="usage")
app.add_typer(admin.app, name="admin")
app.add_typer(pki.app, name="pki")
app.command("up")(up.command)
app.add_typer(serve.app, name="serve")
app.command("gateway")(serve.gateway)
app.command()(prepare.prepare)
app.command()(prepare.probe)
pki.app.command("keep")(prepare.keep)


def main() -> None:
    """The entry point of the command. Exit status: 0 done, 1 refused or failed, 2 wrong usage, 130 Ctrl-C."""
    # What gRPC itself writes to standard error would stand beside our one line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    completion.take_whole_words()
    try:
        status = app(prog_name="strongroom", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        status = complain("interrupted", 130)
    except typer.TyperException as error:
        status = _misused(error)
    except UnicodeEncodeError as error:
        # Bytes on the command line that are no UTF-8, or half a surrogate pair in a JSON document.
        status = complain(f"something that was given is no text ({error.encoding})", 2)
    except Exception as error:
        if os.environ.get("STRONGROOM_DEBUG"):
            raise
        # Its text is not shown: it may hold anything.
        status = complain(f"internal error ({type(error).__name__}). STRONGROOM_DEBUG=1 shows where.", 1)
    sys.exit(status)


def _misused(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if context is None:
        return complain(message, error.exit_code)
    if message == context.get_help():
        # A command that needs another word: its help says which.
        typer.echo(message, err=True)
        return error.exit_code
    message = message.rstrip(".")
    stop = "" if message.endswith("?") else "."
    return complain(f"{message}{stop} See: {context.command_path} --help", error.exit_code)
