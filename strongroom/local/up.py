"""`strongroom up`: from a data directory to a running Strongroom, and back."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from strongroom.local import gateway
from strongroom.local.administration import Admin
from strongroom.local.console import Console, Report
from strongroom.local.contract import SERVICES, Contract
from strongroom.local.credentials import BOOTSTRAP_KEY, Credentials, provide
from strongroom.local.environment import CHECK_SOCKET, gateway_environment, service_command, service_environment
from strongroom.local.layout import Layout, write_private
from strongroom.local.policy import PUBLIC_URL, Policy
from strongroom.local.ports import check_free, free_ports
from strongroom.local.process import Part
from strongroom.local.questions import is_refused
from strongroom.local.state import State, end_leftovers, remove_sockets
from strongroom.local.supervisor import Supervisor
from strongroom.local.telemetry import Telemetry


@dataclass(frozen=True)
class Options:
    """What the user chose. Port 0 takes a free one."""

    data_dir: Path = Path(".strongroom")
    host: str = "127.0.0.1"
    port: int = 8080


def up(options: Options, environment: Mapping[str, str], console: Console) -> None:
    """Runs Strongroom until SIGINT, SIGTERM or SIGHUP. Raises StartError with a sentence for the user."""
    began = time.monotonic()
    os.umask(0o077)
    Policy.read(environment)  # before anything is made
    Telemetry.read(environment)
    layout = Layout(options.data_dir.absolute())
    layout.create()
    with layout.locked():
        end_leftovers(layout)
        port = options.port or free_ports(1)[0]
        check_free(options.host, port)
        credentials = provide(layout, environment)
        state = _new_state(layout, options.host, port)
        # Where callers reach it, unless somebody knows better: tokens name it as their issuer.
        environment = {**environment, PUBLIC_URL: environment.get(PUBLIC_URL) or state.url}
        try:
            settings = _gateway_settings(options.host, state, environment)
            _supervisor(layout, settings, state, credentials, environment, console, began).run()
        finally:
            remove_sockets(layout, Path(state.sockets))
            layout.state.unlink(missing_ok=True)


def _new_state(layout: Layout, host: str, port: int) -> State:
    chosen = free_ports(2 * len(SERVICES) + 1)
    ports = dict(zip(SERVICES, chosen, strict=False)) | {"gateway": port}
    metrics = dict(zip((*SERVICES, "gateway"), chosen[len(SERVICES) :], strict=True))
    name = f"[{host}]" if ":" in host else host
    state = State(f"http://{name}:{port}", str(layout.sockets()), ports, metrics)
    state.save(layout)
    return state


def _supervisor(
    layout: Layout,
    settings: gateway.GatewaySettings,
    state: State,
    credentials: Credentials,
    environment: Mapping[str, str],
    console: Console,
    began: float,
) -> Supervisor:
    def started(part: Part) -> None:
        state.record(part.name, part.pid)
        state.save(layout)

    def ready() -> None:
        seconds = time.monotonic() - began
        file = credentials.admin_key_file
        console.ready(Report(state.url, layout.root, seconds, file, credentials.shown_key))
        if _is_dead(file, settings):
            way_out = f"For another, start with {BOOTSTRAP_KEY}=<a new one>."
            console.trouble(f"The key in {file} is refused: it was revoked or rotated. {way_out}")

    write_private(layout.envoy_config, gateway.render(settings, Contract.load(gateway.DESCRIPTOR_SET)))
    edge = Part("gateway", gateway.command(layout.envoy_config), gateway_environment(environment), layout.open_log)
    services = {
        name: Part(
            name,
            service_command(name),
            service_environment(name, environment, layout, credentials, state),
            layout.open_log,
        )
        for name in SERVICES
    }
    # Nobody is cut off from what it needs: callers stop before those they call, and auth last, to which all report what
    # was used in their last second.
    stages = [[edge], [services["models"]], [services["secrets"]], [services["auth"]]]
    admin = Admin(settings.admin_socket)
    return Supervisor(stages, settings.host, settings.port, admin, console, started, ready)


def _is_dead(key_file: Path | None, settings: gateway.GatewaySettings) -> bool:
    """Whether the key was revoked or rotated. No restart brings it back, or revoking it would mean nothing."""
    with suppress(OSError, ValueError):
        return key_file is not None and is_refused(settings.host, settings.port, key_file.read_text().strip())
    return False


def _gateway_settings(host: str, state: State, environment: Mapping[str, str]) -> gateway.GatewaySettings:
    sockets = Path(state.sockets)
    addresses = {name: f"127.0.0.1:{state.ports[name]}" for name in SERVICES}
    ours = sockets / "admin.sock", sockets / "jwks.sock"
    return gateway.GatewaySettings(
        host,
        state.ports["gateway"],
        addresses,
        *ours,
        Policy.read(environment),
        sockets / CHECK_SOCKET,
        f"127.0.0.1:{state.metrics['gateway']}",
        Telemetry.read(environment),
    )
