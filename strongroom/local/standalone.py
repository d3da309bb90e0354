"""`strongroom gateway`: Envoy alone, in front of services that run elsewhere."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from strongroom.local import gateway
from strongroom.local.administration import Admin
from strongroom.local.contract import Contract
from strongroom.local.environment import gateway_environment
from strongroom.local.errors import StartError
from strongroom.local.layout import write_private
from strongroom.local.policy import Policy
from strongroom.local.process import Part
from strongroom.local.tls import GatewayTls, Sources, pki_of

_ENDING = (signal.SIGINT, signal.SIGTERM)
# Between two looks at the certificates.
_WATCH_SECONDS = 1.0


def run_gateway(host: str, port: int, addresses: Mapping[str, str]) -> int:
    """Runs Envoy until it ends or SIGTERM or SIGINT comes, and returns its exit status."""
    try:
        policy = Policy.read(os.environ)
        sources = Sources.read(os.environ, pki_of(os.environ))
    except StartError as error:
        return _complain(error)
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_ENDING, signal.SIGCHLD))
    with tempfile.TemporaryDirectory(prefix="strongroom-") as folder:
        sockets = Path(folder)
        tls = GatewayTls(sources, sockets / "tls")
        try:
            tls.start()
        except StartError as error:
            return _complain(error)
        ours = sockets / "admin.sock", sockets / "jwks.sock"
        settings = gateway.GatewaySettings(host, port, addresses, *ours, policy, tls)
        config = sockets / "envoy.yaml"
        write_private(config, gateway.render(settings, Contract.load(gateway.DESCRIPTOR_SET)))
        # Its log is this process's own output.
        envoy = Part("gateway", gateway.command(config), gateway_environment(os.environ), lambda _: os.dup(1))
        envoy.start()
        while envoy.running:
            taken = signal.sigtimedwait((*_ENDING, signal.SIGCHLD), _WATCH_SECONDS)
            for complaint in tls.refresh():
                _complain(complaint)
            if taken is not None and taken.si_signo in _ENDING:
                _drain(Admin(settings.admin_socket))
                envoy.send(signal.SIGTERM)
        assert envoy.process is not None
        return max(0, envoy.process.returncode)


def _complain(error: object) -> int:
    sys.stderr.write(f"strongroom: {error}\n")
    return 1


def _drain(admin: Admin) -> None:
    deadline = time.monotonic() + 2 * gateway.DRAIN_SECONDS
    with suppress(OSError):
        admin.start_draining()
        while admin.active_requests() and time.monotonic() < deadline:
            time.sleep(0.05)
