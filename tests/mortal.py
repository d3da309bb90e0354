"""A service that a test kills at any step, and starts again on the same files."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization

from tests.models_installation import Caller, Installation, make_installation_files
from tests.mortal_process import Control
from tests.serving import ADMINISTRATOR, wait_healthy

_REPOSITORY = Path(__file__).parents[1]
_NOT_ANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)


@dataclass(frozen=True)
class Attempt:
    """What became of a call to a service that was to die: `died_at` names the step, None if there are fewer steps.

    `answered`: the service gave its answer, `answer`, before. Otherwise nobody knows what it did.
    """

    died_at: str | None
    answered: bool
    answer: Any = None


@dataclass
class Mortal:
    """A models service in a process of its own, over a secrets service in this one, which lives on."""

    installation: Installation
    control: Control
    launcher: "subprocess.Popen[bytes]"
    database_url: str
    settings: dict[str, Any] = field(default_factory=dict)
    pid: int = 0
    channel: grpc.Channel | None = None

    @property
    def folder(self) -> Path:
        return self.installation.folder

    @property
    def admin(self) -> Caller:
        assert self.channel is not None
        return Caller(self.channel, self.installation.tokens, ADMINISTRATOR)

    @property
    def token_key(self) -> str:
        """What the tokens of callers are signed by, as PEM."""
        encoding, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self.installation.tokens.key.public_key().public_bytes(encoding, kind).decode()

    def caller(self, name: str) -> Caller:
        """An administrator of another name."""
        return replace(self.admin, principal=replace(ADMINISTRATOR, id=f"key:{name}"))

    def start(self) -> None:
        """Starts a service and waits until it is healthy."""
        settings = {
            "data_dir": str(self.folder),
            "database_url": self.database_url,
            "identity_dir": str(self.folder / "keys"),
            "secrets_addr": self.installation.secrets_address,
            "auth_addr": "127.0.0.1:1",
            **self.settings,
        }
        self.pid, address = _order(self.launcher, service="models", settings=settings, token_key=self.token_key)
        self.channel = grpc.insecure_channel(address)

    def replica(self) -> "Mortal":
        """Another service on the same files and database, started; kill it."""
        made = replace(self, pid=0, channel=None)
        made.start()
        return made

    def kill(self) -> None:
        """Kills the service unless it is dead, and waits for its end."""
        with suppress(ProcessLookupError):
            process = os.pidfd_open(self.pid)
            try:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [], 20)
            finally:
                os.close(process)
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def restart(self) -> None:
        self.control.die_at(0)
        self.kill()
        self.start()

    def attempt(self, step: int, act: Callable[[], Any]) -> Attempt:
        """Does something while the service dies at its `step`th step from now; afterwards it runs again.

        Raises RpcError if the service lived and refused.
        """
        self.control.die_at(step)
        answer, answered = None, False
        try:
            answer, answered = act(), True
        except grpc.RpcError as error:
            if self.control.steps_left or error.code() not in _NOT_ANSWERED:
                raise
        finally:
            died_at = self.control.disarm()
            if died_at is not None:
                self.restart()
        return Attempt(died_at, answered, answer)

    def put_clock_ahead(self, by: timedelta) -> None:
        self.control.put_clock_ahead(by)

    def models_database(self) -> sa.Engine:
        """The models service's database, to look into; dispose of it."""
        if self.database_url.startswith("sqlite"):
            return sa.create_engine(self.database_url.replace(".db", "-models.db"))
        options = {"options": "-csearch_path=models"}
        return sa.create_engine(self.database_url.replace("postgresql:", "postgresql+psycopg:"), connect_args=options)

    def stored(self, kind: str = "") -> list[Path]:
        """Files in the local store: all, or those of `packs`, `manifests`, `.tmp`."""
        return self.installation.stored(kind)


class MortalSecrets(Mortal):
    """A mortal secrets service; the models service over it runs in this process, and lives on."""

    @property
    def admin(self) -> Caller:
        return self.installation.admin

    def start(self) -> None:
        files = {
            "data_dir": self.folder,
            "identity_dir": self.folder / "keys",
            "root_key_file": self.folder / "root.key",
        }
        settings = {name: str(path) for name, path in files.items()} | {
            "database_url": f"sqlite:///{self.folder}/db/strongroom.db",
            "secrets_listen": self.installation.secrets_address,
            "auth_addr": "127.0.0.1:1",
        }
        self.pid, self.installation.secrets_address = _order(
            self.launcher, service="secrets", settings=settings, token_key=self.token_key
        )


def _order(launcher: "subprocess.Popen[bytes]", **order: Any) -> tuple[int, str]:
    """Starts a service and waits until it is healthy; its process and address."""
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    launcher.stdin.write(json.dumps(order).encode() + b"\n")
    launcher.stdin.flush()
    pid, port = json.loads(launcher.stdout.readline())
    wait_healthy(f"127.0.0.1:{port}")
    return pid, f"127.0.0.1:{port}"


@contextmanager
def mortal(folder: Path, database_url: str = "", **settings: Any) -> Iterator[Mortal]:
    """Runs a mortal models service while the block runs, on SQLite unless a URL is given."""
    made = make_installation_files(folder)
    made.start_secrets("127.0.0.1:0")
    database_url = database_url or f"sqlite:///{folder}/db/strongroom.db"
    with _launcher(folder) as (control, launcher):
        running = Mortal(made, control, launcher, database_url, settings)
        try:
            running.start()
            yield running
        finally:
            running.kill()
            made.secrets.close()


@contextmanager
def mortal_secrets(folder: Path) -> Iterator[MortalSecrets]:
    """Runs a mortal secrets service and a models service over it while the block runs."""
    made = make_installation_files(folder)
    made.secrets_address = "127.0.0.1:0"
    with _launcher(folder) as (control, launcher):
        running = MortalSecrets(made, control, launcher, f"sqlite:///{folder}/db/strongroom.db")
        try:
            running.start()
            with made.models() as address, grpc.insecure_channel(address) as made.channel:
                yield running
        finally:
            running.kill()


@contextmanager
def _launcher(folder: Path) -> "Iterator[tuple[Control, subprocess.Popen[bytes]]]":
    control = Control.make(folder / "control")
    # Coverage would record a process that only ever dies.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    with (folder / "mortal.log").open("wb") as log:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "tests.mortal_process", str(folder / "control")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=_REPOSITORY,
            env=environment,
        )
    try:
        yield control, launcher
    finally:
        launcher.kill()
        launcher.communicate()
