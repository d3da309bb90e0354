"""A real OpenBao server with a transit engine, in memory, on a free loopback port."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import hvac
import requests

from tests.stack import free_port

BAO = Path(sys.executable).parent / "bao"


@dataclass(frozen=True)
class Server:
    """Where it is, and the token that may do everything."""

    url: str
    token: str = field(repr=False)

    def client(self, token: str | None = None) -> hvac.Client:
        return hvac.Client(self.url, token=token or self.token)


@contextmanager
def transit_server() -> Iterator[Server]:
    """Runs it while the block runs, with a key `strongroom` that encrypts with additional data."""
    port, token = free_port(), secrets.token_urlsafe(16)
    listen = [f"-dev-listen-address=127.0.0.1:{port}", f"-dev-root-token-id={token}", "-dev-no-store-token"]
    process = subprocess.Popen(
        [BAO, "server", "-dev", *listen], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ.copy()
    )
    server = Server(f"http://127.0.0.1:{port}", token)
    try:
        _wait(server, process)
        client = server.client()
        client.sys.enable_secrets_engine("transit")
        client.secrets.transit.create_key("strongroom")
        yield server
    finally:
        process.kill()
        process.wait(timeout=10)


def _wait(server: Server, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if server.client().sys.is_initialized() and not server.client().sys.is_sealed():
                return
        except (requests.ConnectionError, hvac.exceptions.VaultError):
            assert process.poll() is None, "OpenBao ended"
            time.sleep(0.05)
    raise AssertionError("OpenBao did not answer")
