"""A real moto server, which speaks AWS's protocols over HTTP on a free loopback port, in a process of its own."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.stack import free_port

REGION = "eu-west-1"
# What moto takes from whoever has not been made a user of it.
ANYBODY = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "testing",  # pragma: allowlist secret
    "AWS_DEFAULT_REGION": REGION,
}


@contextmanager
def moto(**environment: str) -> Iterator[str]:
    """Runs it while the block runs; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    try:
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


def verify_signatures(url: str) -> None:
    """From now on moto refuses what is not signed by a secret that it gave out (`INITIAL_NO_AUTH_ACTION_COUNT`)."""
    text = {"content-type": "text/plain"}
    request = urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", text, method="POST")  # noqa: S310
    urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 - always our own http URL


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/", timeout=2):  # noqa: S310 - always our own http URL
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "moto ended"
            time.sleep(0.1)
    raise AssertionError("moto did not answer")
