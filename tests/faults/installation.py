"""Two replicas of each service behind one gateway, on one PostgreSQL, each part a process of its own."""

import base64
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from strongroom.local.administration import Admin
from tests.faults.lines import STATES
from tests.serving import make_identities, wait_healthy
from tests.stack import STRONGROOM, free_port, inherited

SERVICES = ("secrets", "auth", "models")
REPLICAS = 2
DATABASE = "database"
_REPOSITORY = Path(__file__).parents[2]


@dataclass
class Replica:
    """One process of a service, which others reach at `address`, maybe over a line."""

    name: str
    service: str
    port: int
    address: str
    environment: dict[str, str] = field(repr=False)
    pid: int = 0

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Installation:
    """Everything that runs; parts are named `auth-1`, `auth-2` and so on, and `gateway`."""

    def __init__(self, folder: Path, database_url: str, *, with_lines: bool, **environment: str) -> None:
        self.folder = folder
        self.admin_key = secrets.token_urlsafe(24)
        self.gateway_port = free_port()
        self.url = f"http://127.0.0.1:{self.gateway_port}"
        # Short: the gateway makes sockets in it.
        self._sockets = Path(tempfile.mkdtemp(prefix="sr-"))
        self._database_port = urlsplit(database_url).port
        self._lines: dict[str, tuple[int, int]] = {}
        self._with_lines = with_lines
        if with_lines:
            assert self._database_port is not None
            line = self._lines[DATABASE] = (free_port(), self._database_port)
            database_url = database_url.replace(f":{self._database_port}/", f":{line[0]}/")
        self.replicas = {replica.name: replica for service in SERVICES for replica in self._replicas(service)}
        self._prepare(database_url, environment)
        self._processes = ExitStack()
        self._launcher: subprocess.Popen[bytes]
        # One order at a time: answers come in the order of the orders.
        self._launching = threading.Lock()
        self._relays: subprocess.Popen[bytes] | None = None
        self.gateway: subprocess.Popen[bytes]

    @property
    def target(self) -> str:
        """host:port of the gateway, for gRPC."""
        return self.url.removeprefix("http://")

    @property
    def lines(self) -> list[str]:
        return list(self._lines)

    def _replicas(self, service: str) -> Iterator[Replica]:
        for number in range(1, REPLICAS + 1):
            name, port = f"{service}-{number}", free_port()
            seen = port
            if self._with_lines:
                self._lines[name] = (seen := free_port(), port)
            yield Replica(name, service, port, f"127.0.0.1:{seen}", {})

    def _prepare(self, database_url: str, environment: dict[str, str]) -> None:
        root_key = self.folder / "root.key"
        root_key.touch(mode=0o600)
        root_key.write_bytes(base64.b64encode(os.urandom(32)))
        self._found_at = {
            f"STRONGROOM_{service.upper()}_ADDR": ",".join(
                replica.address for replica in self.replicas.values() if replica.service == service
            )
            for service in SERVICES
        }
        shared = inherited() | self._found_at | environment
        shared |= {
            "PYTHONPATH": str(_REPOSITORY),
            "STRONGROOM_DATA_DIR": str(self.folder / "data"),
            "STRONGROOM_DATABASE_URL": database_url,
            "STRONGROOM_RATE_LIMIT": "off",
            "STRONGROOM_IDENTITY_DIR": str(make_identities(self.folder / "keys")),
        }
        own = {
            "secrets": {"STRONGROOM_ROOT_KEY_FILE": str(root_key)},
            "auth": {"STRONGROOM_BOOTSTRAP_API_KEY": self.admin_key},
            "models": {},
        }
        for replica in self.replicas.values():
            listen = {f"STRONGROOM_{replica.service.upper()}_LISTEN": f"127.0.0.1:{replica.port}"}
            replica.environment = shared | own[replica.service] | listen

    def __enter__(self) -> "Installation":
        with ExitStack() as started:
            self._launcher = started.enter_context(_helper("launcher"))
            if self._lines:
                self._relays = started.enter_context(_helper("lines"))
                _ask(self._relays, self._lines)
            self.gateway = self._start_gateway()
            started.callback(self._end_gateway)
            for replica in self.replicas.values():
                self.start(replica.name, wait=False)
                started.callback(replica.signal, signal.SIGKILL)
            self.wait_healthy()
            self._processes = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for replica in self.replicas.values():
            replica.signal(signal.SIGCONT)
        self._processes.close()
        shutil.rmtree(self._sockets)

    def start(self, name: str, *, wait: bool = True) -> None:
        """Starts a replica that does not run, and waits until the gateway finds it healthy."""
        replica = self.replicas[name]
        order = {
            "service": replica.service,
            "environment": replica.environment,
            "log": str(self.folder / f"{name}.log"),
        }
        with self._launching:
            replica.pid = int(_ask(self._launcher, order))
        if wait:
            wait_healthy(f"127.0.0.1:{replica.port}")
            self.wait_used(name)

    def end(self, name: str, number: signal.Signals = signal.SIGKILL, seconds: float = 40) -> None:
        """Sends a replica a signal that ends it, and waits for its end."""
        replica = self.replicas[name]
        try:
            process = os.pidfd_open(replica.pid)
        except ProcessLookupError:
            return
        try:
            signal.pidfd_send_signal(process, number)
            gone, _, _ = select.select([process], [], [], seconds)
            assert gone, f"{name} did not end"
        finally:
            os.close(process)

    def turn(self, line: str, state: str) -> None:
        """Changes how the line to a replica, or to the database, behaves."""
        assert state in STATES
        assert self._relays is not None
        _ask(self._relays, {"line": line, "state": state})

    def restart_gateway(self) -> None:
        """Kills it, with Envoy, and starts it again."""
        self.gateway.kill()
        self.gateway.wait()
        self.gateway = self._start_gateway()

    def wait_healthy(self, seconds: float = 60) -> None:
        """Returns once every replica is healthy, and the whole as the gateway sees it."""
        for replica in self.replicas.values():
            wait_healthy(f"127.0.0.1:{replica.port}", seconds)
        self.wait_used(seconds=seconds)
        deadline = time.monotonic() + seconds
        while not self._is_healthy():
            assert time.monotonic() < deadline, f"it did not get healthy:\n{self.report()}"
            time.sleep(0.05)

    def wait_used(self, *names: str, seconds: float = 60) -> None:
        """Returns once the gateway sends requests to these replicas, to all if none is named. Raises TimeoutError."""
        wanted = {self.replicas[name].address for name in names or self.replicas}
        deadline = time.monotonic() + seconds
        while wanted & self._unused():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the gateway leaves a replica out:\n{self.report()}")
            time.sleep(0.05)

    def _unused(self) -> set[str]:
        everybody = {replica.address for replica in self.replicas.values()}
        with suppress(OSError):
            for socket in self._sockets.glob("*/admin.sock"):
                return Admin(socket).unhealthy()
        return everybody

    def report(self) -> str:
        """The ends of the logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:  # noqa: S310 - our own http URL
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _start_gateway(self) -> "subprocess.Popen[bytes]":
        for left in self._sockets.iterdir():
            shutil.rmtree(left)
        variables = {
            "STRONGROOM_GATEWAY_PORT": str(self.gateway_port),
            "STRONGROOM_RATE_LIMIT": "off",
            "TMPDIR": str(self._sockets),
        }
        with (self.folder / "gateway.log").open("ab") as output:
            return subprocess.Popen(
                [str(STRONGROOM), "gateway"],
                env=inherited() | self._found_at | variables,
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _end_gateway(self) -> None:
        self.gateway.terminate()
        try:
            self.gateway.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.gateway.kill()
            self.gateway.wait()


@contextmanager
def _helper(module: str) -> "Iterator[subprocess.Popen[bytes]]":
    command = [sys.executable, "-m", f"tests.faults.{module}"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_REPOSITORY, env=inherited(), bufsize=0
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def _ask(process: "subprocess.Popen[bytes]", order: object) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    answer = process.stdout.readline().decode()
    assert answer, f"{process.args!r} has ended"
    return answer.strip()
