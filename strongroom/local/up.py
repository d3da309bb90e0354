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
from strongroom.local.ports import check_free, free_ports, is_loopback, reachable
from strongroom.local.process import Part
from strongroom.local.questions import Edge, is_refused
from strongroom.local.state import State, end_leftovers, remove_sockets
from strongroom.local.supervisor import Supervisor
from strongroom.local.telemetry import Telemetry
from strongroom.local.tls import CERTIFICATE, KEY, SWITCH, GatewayTls, Sources, Upkeep, pki_of


@dataclass(frozen=True)
class Options:
    """What the user chose. Port 0 takes a free one."""

    data_dir: Path = Path(".strongroom")
    host: str = "127.0.0.1"
    port: int = 8080
    # The certificate that callers are shown and its key, instead of those of `strongroom pki`.
    tls_cert: Path | None = None
    tls_key: Path | None = None


def up(options: Options, environment: Mapping[str, str], console: Console) -> None:
    """Runs Strongroom until SIGINT, SIGTERM or SIGHUP. Raises StartError with a sentence for the user."""
    began = time.monotonic()
    os.umask(0o077)
    environment = {**environment, **_chosen(options)}
    Policy.read(environment)  # before anything is made
    Telemetry.read(environment)
    Sources.read(environment, None)
    layout = Layout(options.data_dir.absolute())
    if options.port and not layout.root.exists():
        check_free(options.host, options.port)  # or a start that fails would leave folders behind
    layout.create()
    with layout.locked():
        end_leftovers(layout)
        port = options.port or free_ports(1)[0]
        check_free(options.host, port)
        credentials = provide(layout, environment)
        tls = _tls(layout, environment)
        state = _new_state(layout, Edge(options.host, port), tls, environment)
        # Where callers reach it, unless somebody knows better: tokens name it as their issuer.
        environment = {**environment, PUBLIC_URL: environment.get(PUBLIC_URL) or state.url}
        try:
            settings = _gateway_settings(options.host, state, environment, tls)
            _supervisor(layout, settings, state, credentials, environment, console, began).run()
        finally:
            remove_sockets(layout, Path(state.sockets))
            layout.state.unlink(missing_ok=True)


def _chosen(options: Options) -> dict[str, str]:
    given = {CERTIFICATE: options.tls_cert, KEY: options.tls_key}
    return {name: str(path) for name, path in given.items() if path is not None}


def _tls(layout: Layout, environment: Mapping[str, str]) -> GatewayTls:
    pki = pki_of(environment, layout.pki)
    if pki:
        pki.renew()
    tls = GatewayTls(Sources.read(environment, pki), layout.tls)
    tls.start()
    return tls


def _new_state(layout: Layout, edge: Edge, tls: GatewayTls, environment: Mapping[str, str]) -> State:
    chosen = free_ports(2 * len(SERVICES) + 1)
    ports = dict(zip(SERVICES, chosen, strict=False)) | {"gateway": edge.port}
    metrics = dict(zip((*SERVICES, "gateway"), chosen[len(SERVICES) :], strict=True))
    host = edge.host
    if tls.at_edge and host not in tls.names and tls.names:
        host = tls.names[0]  # under another it is not believed
    host = reachable(host)  # nobody can call every interface
    name = f"[{host}]" if ":" in host else host
    url = f"{'https' if tls.at_edge else 'http'}://{name}:{edge.port}"
    # Where somebody has switched TLS off, something in front of the gateway speaks it.
    private = tls.at_edge or bool(environment.get(SWITCH)) or is_loopback(edge.host)
    state = State(url, str(layout.sockets()), ports, metrics, overheard="" if private else edge.host)
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

    tls = settings.tls

    def edge() -> Edge:
        return Edge(settings.host, settings.port, tls.shown() if tls.at_edge else None)

    def ready() -> None:
        seconds = time.monotonic() - began
        file = credentials.admin_key_file
        report = Report(state.url, layout.root, seconds, file, credentials.shown_key, tls.ca_file, state.overheard)
        console.ready(report)
        if _is_dead(file, edge()):
            way_out = f"For another, start with {BOOTSTRAP_KEY}=<a new one>."
            console.trouble(f"The key in {file} is refused: it was revoked or rotated. {way_out}")

    write_private(layout.envoy_config, gateway.render(settings, Contract.load(gateway.DESCRIPTOR_SET)))
    envoy = Part("gateway", gateway.command(layout.envoy_config), gateway_environment(environment), layout.open_log)
    services = {
        name: Part(
            name,
            service_command(name),
            service_environment(name, environment, layout, credentials, state, tls.pki_dir),
            layout.open_log,
        )
        for name in SERVICES
    }
    # Nobody is cut off from what it needs: callers stop before those they call, and auth last, to which all report what
    # was used in their last second.
    stages = [[envoy], [services["models"]], [services["secrets"]], [services["auth"]]]
    admin = Admin(settings.admin_socket)
    return Supervisor(stages, edge, admin, console, started, ready, Upkeep(tls, console.trouble))


def _is_dead(key_file: Path | None, edge: Edge) -> bool:
    """Whether the key was revoked or rotated. No restart brings it back, or revoking it would mean nothing."""
    with suppress(OSError, ValueError):
        return key_file is not None and is_refused(edge, key_file.read_text().strip())
    return False


def _gateway_settings(
    host: str, state: State, environment: Mapping[str, str], tls: GatewayTls
) -> gateway.GatewaySettings:
    sockets = Path(state.sockets)
    addresses = {name: f"127.0.0.1:{state.ports[name]}" for name in SERVICES}
    return gateway.GatewaySettings(
        host,
        state.ports["gateway"],
        addresses,
        sockets / "admin.sock",
        sockets / "jwks.sock",
        Policy.read(environment),
        tls,
        sockets / CHECK_SOCKET,
        f"127.0.0.1:{state.metrics['gateway']}",
        Telemetry.read(environment),
    )
