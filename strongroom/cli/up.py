"""`strongroom up`: everything on this machine."""

import os
from pathlib import Path
from typing import Annotated

import typer


def command(
    data_dir: Annotated[
        Path, typer.Option(envvar="STRONGROOM_DATA_DIR", help="Where keys, databases and weights are kept.")
    ] = Path(".strongroom"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address of the gateway; 0.0.0.0 for every interface.")] = "127.0.0.1",
    tls_cert: Annotated[
        Path | None, typer.Option(envvar="STRONGROOM_TLS_CERT", help="The certificate chain for https, PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="STRONGROOM_TLS_KEY", help="Its key, mode 0600, if not in the same file.")
    ] = None,
) -> None:
    """Start Strongroom here: gateway, auth, models and secrets. Ctrl-C stops all of it."""
    # Here, so that other commands do without the supervisor.
    from strongroom.local.console import Console
    from strongroom.local.errors import StartError
    from strongroom.local.up import Options
    from strongroom.local.up import up as run_up

    try:
        run_up(Options(data_dir, host, port, tls_cert, tls_key), os.environ, Console())
    except StartError as error:
        typer.echo(f"strongroom: {error}", err=True)
        raise typer.Exit(1) from None
