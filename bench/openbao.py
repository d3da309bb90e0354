"""OpenBao as it is run in earnest: raft storage and a file audit device, one node, on a loopback port."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.stack import free_port

_BAO = Path(sys.executable).parent / "bao"


@dataclass(frozen=True)
class OpenBao:
    """A running server with a KV engine of version 2 at `kv/`."""

    port: int
    token: str = field(repr=False)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer; None for an empty one."""
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}/v1/{path}"
        request = urllib.request.Request(url, data, {"X-Vault-Token": self.token}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - always a loopback http URL
            return json.loads(answer.read() or "null")

    def reader(self, path: str) -> str:
        """A token that may read one secret and nothing else."""
        policy = f'path "kv/data/{path}" {{ capabilities = ["read"] }}'
        self.call("PUT", "sys/policies/acl/reader", {"policy": policy})
        token: str = self.call("POST", "auth/token/create", {"policies": ["reader"]})["auth"]["client_token"]
        return token


@contextmanager
def openbao(folder: Path) -> Iterator[OpenBao]:
    """The server while the block runs, unsealed; its files are below `folder`."""
    (folder / "raft").mkdir(parents=True)
    port, cluster = free_port(), free_port()
    configuration = folder / "bao.hcl"
    configuration.write_text(
        f"""
        storage "raft" {{
          path = "{folder / "raft"}"
          node_id = "one"
          performance_multiplier = 1
        }}
        audit "file" "file" {{
          options = {{ file_path = "{folder / "audit.log"}" }}
        }}
        listener "tcp" {{
          address = "127.0.0.1:{port}"
          cluster_address = "127.0.0.1:{cluster}"
          tls_disable = true
        }}
        api_addr = "http://127.0.0.1:{port}"
        cluster_addr = "https://127.0.0.1:{cluster}"
        """
    )
    with (folder / "bao.log").open("wb") as log:
        process = subprocess.Popen([_BAO, "server", f"-config={configuration}"], stdout=log, stderr=log)
    try:
        yield _ready(port)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _ready(port: int) -> OpenBao:
    stranger = OpenBao(port, "")
    made = _patiently(lambda: stranger.call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1}))
    stranger.call("PUT", "sys/unseal", {"key": made["keys"][0]})
    server = OpenBao(port, made["root_token"])
    _patiently(lambda: server.call("GET", "sys/health"))
    server.call("POST", "sys/mounts/kv", {"type": "kv", "options": {"version": "2"}})
    # The engine is upgraded in the background, and until then refuses.
    _patiently(lambda: server.call("POST", "kv/data/first", {"data": {}}))
    return server


def _patiently(call: Any, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
