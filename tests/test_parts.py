"""Each part alone, as a container runs it: `strongroom serve auth|models|secrets` and `strongroom gateway`."""

import base64
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from strongroom import Client
from strongroom.errors import NotFound
from tests.serving import make_identities
from tests.stack import STRONGROOM, free_port

PARTS = {
    "secrets": ["serve", "secrets"],
    "auth": ["serve", "auth"],
    "models": ["serve", "models"],
    "gateway": ["gateway"],
}
ADMIN_KEY = "a key that was chosen by its operator"


@contextmanager
def part(arguments: list[str], variables: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs one part; ends it with SIGTERM, after which it must exit with 0."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
    log = folder / f"{arguments[-1]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(STRONGROOM), *arguments], env=kept | variables, cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert status == 0, log.read_text(errors="replace")[-2000:]


def wait_healthy(url: str, processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes), "a part ended"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):  # noqa: S310 - always our own http URL
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError("the parts did not get healthy")


@pytest.mark.slow
def test_the_parts_run_apart_and_find_each_other_by_their_addresses(tmp_path: Path) -> None:
    root_key = tmp_path / "root.key"
    root_key.touch(mode=0o600)
    root_key.write_bytes(base64.b64encode(os.urandom(32)))
    ports = {name: free_port() for name in (*PARTS, "metrics")}
    shared = {f"STRONGROOM_{name.upper()}_ADDR": f"127.0.0.1:{ports[name]}" for name in ("auth", "models", "secrets")}
    shared |= {
        "STRONGROOM_DATA_DIR": str(tmp_path / "data"),
        "STRONGROOM_DATABASE_URL": f"sqlite:///{tmp_path / 'db' / 'strongroom.db'}",
        "STRONGROOM_NOTICE_SECONDS": "0",
        "STRONGROOM_IDENTITY_DIR": str(make_identities(tmp_path / "keys")),
    }
    own = {
        "secrets": {"STRONGROOM_ROOT_KEY_FILE": str(root_key)},
        "auth": {"STRONGROOM_BOOTSTRAP_API_KEY": ADMIN_KEY},
        "models": {"STRONGROOM_METRICS_LISTEN": f"127.0.0.1:{ports['metrics']}"},
        "gateway": {"STRONGROOM_GATEWAY_PORT": str(ports["gateway"])},
    }
    url = f"http://127.0.0.1:{ports['gateway']}"
    (tmp_path / "weights.bin").write_bytes(b"weights")
    with ExitStack() as stack:
        processes = []
        for name, arguments in PARTS.items():
            listen = {f"STRONGROOM_{name.upper()}_LISTEN": f"127.0.0.1:{ports[name]}"}
            processes.append(stack.enter_context(part(arguments, shared | listen | own[name], tmp_path)))
        wait_healthy(url, processes)
        with Client(url, api_key=ADMIN_KEY) as client:
            client.models.push("scorer", tmp_path / "weights.bin", version="v1")
            assert client.models.read("scorer", "weights.bin") == b"weights"
            with pytest.raises(NotFound):
                client.secrets.get("none")
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['metrics']}/metrics", timeout=5) as answer:
            metrics = answer.read().decode()
    commit = 'strongroom_requests_total{code="OK",method="/strongroom.models.v1.WeightsService/CommitUpload"} 1.0'
    assert commit in metrics
    assert "strongroom_request_seconds_bucket" in metrics
    for log in tmp_path.glob("*.log"):
        assert ADMIN_KEY not in log.read_text(errors="replace"), log
