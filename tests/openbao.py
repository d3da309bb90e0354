"""A real OpenBao with raft, initialized and unsealed, on a free loopback port; a folder of the KV engine a test."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import hvac
import requests

from tests.stack import free_port

_BAO = Path(sys.executable).parent / "bao"
_SECONDS = 30


@dataclass(frozen=True)
class OpenBaoServer:
    """`url`, and the token that may do everything."""

    url: str
    root_token: str = field(repr=False)

    @property
    def root(self) -> hvac.Client:
        return hvac.Client(self.url, token=self.root_token, timeout=10)

    def mount(self) -> str:
        """A new KV engine, version 2."""
        name = f"kv-{secrets.token_hex(6)}"
        self.root.sys.enable_secrets_engine("kv", path=name, options={"version": "2"})
        # It is upgraded in the background, and until then refuses.
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                self.root.secrets.kv.v2.list_secrets("", mount_point=name)
            except hvac.exceptions.InvalidPath:
                return name
            except hvac.exceptions.InvalidRequest:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def policy(self, mount: str) -> str:
        """The name of a policy that lets a mount be used and nothing else."""
        rules = {"path": {f"{mount}/*": {"capabilities": ["create", "read", "update", "delete", "list"]}}}
        self.root.sys.create_or_update_policy(mount, json.dumps(rules))
        return mount

    def token(self, mount: str) -> str:
        """A token for a mount alone."""
        made = self.root.auth.token.create(policies=[self.policy(mount)], no_default_policy=True)
        return str(made["auth"]["client_token"])

    def approle(self, mount: str, *, ttl: str = "1h") -> tuple[str, str]:
        """Role id and secret id for a mount alone."""
        if "approle/" not in self.root.sys.list_auth_methods()["data"]:
            self.root.sys.enable_auth_method("approle")
        role = self.root.auth.approle
        role.create_or_update_approle(mount, token_policies=[self.policy(mount)], token_ttl=ttl)
        role_id = role.read_role_id(mount)["data"]["role_id"]
        return role_id, role.generate_secret_id(mount)["data"]["secret_id"]

    def transit(self, key: str = "strongroom") -> str:
        """A new transit engine with a key that encrypts with additional data; where it is mounted."""
        name = f"transit-{secrets.token_hex(6)}"
        self.root.sys.enable_secrets_engine("transit", path=name)
        self.root.secrets.transit.create_key(key, mount_point=name)
        return name

    def transit_policy(self, mount: str, key: str = "strongroom") -> str:
        """The name of a policy that lets a transit key be used: `create` would let its holder make another."""
        rules = {"path": {f"{mount}/+/{key}": {"capabilities": ["update"]}}}
        self.root.sys.create_or_update_policy(mount, json.dumps(rules))
        return mount


@contextmanager
def running() -> Iterator[OpenBaoServer]:
    """The server while the block runs."""
    with tempfile.TemporaryDirectory(prefix="strongroom-bao-") as name:
        folder, port, cluster = Path(name), free_port(), free_port()
        (folder / "raft").mkdir()
        (folder / "bao.hcl").write_text(
            f"""
            storage "raft" {{
              path = "{folder / "raft"}"
              node_id = "one"
              performance_multiplier = 1
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
        log = folder / "bao.log"
        with log.open("wb") as output:
            kept = {key: value for key, value in os.environ.items() if not key.startswith(("BAO_", "VAULT_"))}
            process = subprocess.Popen(
                [_BAO, "server", f"-config={folder / 'bao.hcl'}"], stdout=output, stderr=output, env=kept
            )
        try:
            yield _unsealed(f"http://127.0.0.1:{port}", process, log)
        finally:
            process.kill()
            process.wait()


def _unsealed(url: str, process: "subprocess.Popen[bytes]", log: Path) -> OpenBaoServer:
    deadline = time.monotonic() + _SECONDS
    client = hvac.Client(url, token="", timeout=10)
    server: OpenBaoServer | None = None
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(requests.ConnectionError):
            if server is None:
                made = client.sys.initialize(secret_shares=1, secret_threshold=1)
                client.sys.submit_unseal_key(made["keys"][0])
                server = OpenBaoServer(url, made["root_token"])
            # 200 once it is the active one of its cluster.
            elif requests.get(f"{url}/v1/sys/health", timeout=5).status_code == 200:
                return server
        time.sleep(0.05)
    raise AssertionError(f"OpenBao did not start:\n{log.read_text(errors='replace')[-3000:]}")
