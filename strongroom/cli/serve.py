"""`strongroom serve SERVICE` and `strongroom gateway`: one part alone, as containers run them."""

import runpy
from typing import Annotated

import typer

app = typer.Typer(help="Run one service in the foreground, set up by STRONGROOM_* variables.", no_args_is_help=True)


@app.command("auth")
def auth() -> None:
    """Run the auth service."""
    _run("auth")


@app.command("models")
def models() -> None:
    """Run the models service."""
    _run("models")


@app.command("secrets")
def secrets() -> None:
    """Run the secrets service."""
    _run("secrets")


def gateway(
    host: Annotated[str, typer.Option(envvar="STRONGROOM_GATEWAY_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="STRONGROOM_GATEWAY_PORT", help="Port to listen on.")] = 8080,
    auth_addr: Annotated[
        str, typer.Option(envvar="STRONGROOM_AUTH_ADDR", help="host:port of auth, of its replicas with commas.")
    ] = "127.0.0.1:8091",
    models_addr: Annotated[
        str, typer.Option(envvar="STRONGROOM_MODELS_ADDR", help="host:port of models, of its replicas with commas.")
    ] = "127.0.0.1:8092",
    secrets_addr: Annotated[
        str, typer.Option(envvar="STRONGROOM_SECRETS_ADDR", help="host:port of secrets, of its replicas with commas.")
    ] = "127.0.0.1:8093",
) -> None:
    """Run the gateway alone. SIGTERM lets requests in flight finish."""
    from strongroom.local.standalone import run_gateway

    addresses = {"auth": auth_addr, "models": models_addr, "secrets": secrets_addr}
    raise typer.Exit(run_gateway(host, port, addresses))


def _run(service: str) -> None:
    # As a module by its name: the services are no part of what the client imports.
    runpy.run_module(f"services.{service}", run_name="__main__")
