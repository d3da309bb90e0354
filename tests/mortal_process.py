"""`python -m tests.mortal_process CONTROL`: runs services that kill themselves at the step they are told.

One process imports everything once; each line on standard input, the settings of a service as JSON, makes it fork one.
A service writes `[pid, port]` to standard output. The file CONTROL is memory shared with the test (`Control`).

Steps are what changes something that outlives the process: a file is opened for writing, flushed, linked, removed or
cut, a folder made, a transaction about to commit, a transaction just committed. They are seen from outside of the
service, by audit hooks (PEP 578) and SQLAlchemy's events: nothing in it is replaced.
"""

import gc
import json
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from services.models import bootstrap as models_bootstrap
from services.models.settings import ModelsSettings
from services.secrets import bootstrap as secrets_bootstrap
from services.secrets.settings import SecretsSettings
from services.shared.service import Server
from services.shared.settings import ServiceSettings
from services.shared.tokens import TokenVerifier, load_service_keys

CONTROL_BYTES = 4096
_STEPS = struct.Struct("<q")
_CLOCK = struct.Struct("<d")
_NEVER = 1 << 62
_STEPS_AT, _CLOCK_AT, _NAME_AT = 0, 8, 16

_FILE_EVENTS = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Control:
    """What a test tells a service, and the service a test, in a file that both have mapped."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), CONTROL_BYTES)
        self._lock = threading.Lock()

    @classmethod
    def make(cls, path: Path) -> "Control":
        path.write_bytes(bytes(CONTROL_BYTES))
        return cls(path)

    def die_at(self, step: int) -> None:
        """The service dies at its `step`th step from now, the first being 1; 0: at none."""
        _STEPS.pack_into(self._memory, _STEPS_AT, step)

    def disarm(self) -> str | None:
        """It does not die any more; the step at which it did, None if it lives.

        Told more than once: a thread of it that is within `step` may write its count over the first.
        """
        for _ in range(3):
            if not self.steps_left:
                return self.last_step
            self.die_at(_NEVER)
            time.sleep(0.002)
        died = not self.steps_left
        self.die_at(0)
        return self.last_step if died else None

    @property
    def steps_left(self) -> int:
        """Steps until death; 0 when it came, or was not asked for."""
        return int(_STEPS.unpack_from(self._memory, _STEPS_AT)[0])

    @property
    def last_step(self) -> str:
        """What the service was about to do when it died."""
        return bytes(self._memory[_NAME_AT:]).rstrip(b"\0").decode()

    def put_clock_ahead(self, by: timedelta) -> None:
        """Shifts the service's clock against the real one."""
        _CLOCK.pack_into(self._memory, _CLOCK_AT, by.total_seconds())

    def now(self) -> datetime:
        """The service's clock."""
        return datetime.now(UTC) + timedelta(seconds=_CLOCK.unpack_from(self._memory, _CLOCK_AT)[0])

    def step(self, name: str) -> None:
        """Counts a step of the service, and kills it at the one that was asked for."""
        if not self.steps_left:
            return
        with self._lock:
            left = self.steps_left - 1
            if left < 0:
                return
            _STEPS.pack_into(self._memory, _STEPS_AT, left)
            if left == 0:
                self._memory[_NAME_AT:] = name.encode()[: CONTROL_BYTES - _NAME_AT].ljust(
                    CONTROL_BYTES - _NAME_AT, b"\0"
                )
                os.kill(os.getpid(), signal.SIGKILL)


def watch(control: Control) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FILE_EVENTS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
            control.step(f"{event} {arguments[0]!r}")

    sys.addaudithook(hook)
    _watch_calls(control)

    @sa.event.listens_for(Engine, "commit")
    def _committing(connection: sa.Connection) -> None:
        connection.info["committing"] = True
        control.step("commit")

    @sa.event.listens_for(Pool, "checkin")
    def _returned(_connection: Any, record: Any) -> None:
        if record.info.pop("committing", False):
            control.step("committed")


def _watch_calls(control: Control) -> None:
    """Flushing and writing raise no audit event: the functions of `os` say so themselves."""

    def announced(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            control.step(name)
            return function(*arguments, **named)

        return call

    for name in ("fsync", "pwrite"):
        setattr(os, name, announced(name, getattr(os, name)))


def _serve(control: Control, answers: int, order: dict[str, Any]) -> None:
    settings: ServiceSettings
    if order["service"] == "secrets":
        settings = SecretsSettings(**order["settings"])
        service = replace(
            secrets_bootstrap.build(settings), verifier=_trusting("secrets", order["token_key"], settings)
        )
    else:
        settings = ModelsSettings(**order["settings"])
        service = replace(
            models_bootstrap.build(settings, control.now), verifier=_trusting("models", order["token_key"], settings)
        )
    server = Server(service, settings)
    server.start()
    os.write(answers, json.dumps([os.getpid(), server.port]).encode() + b"\n")
    signal.pause()


def _trusting(service: str, token_key: str, settings: ServiceSettings) -> TokenVerifier:
    """Accepts identity tokens signed by the test, in auth's place."""
    key = serialization.load_pem_public_key(token_key.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return TokenVerifier(
        service, {"test": key}.get, load_service_keys(settings.identity_dir), lambda _credential: False
    )


def main() -> None:
    control = Control(Path(sys.argv[1]))
    # What services log goes to standard error: standard output is for their addresses.
    answers = os.dup(1)
    os.dup2(2, 1)
    watch(control)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    # Children share what is imported as long as nobody looks for garbage in it.
    gc.collect()
    gc.freeze()
    # Not `for line in sys.stdin`, whose read-ahead a fork would inherit.
    while line := sys.stdin.buffer.raw.readline():  # type: ignore[attr-defined]
        if os.fork() == 0:
            # With the process that ordered it a service goes too.
            _end_with_parent()
            _serve(control, answers, json.loads(line))


def _end_with_parent() -> None:
    import ctypes

    pr_set_pdeathsig = 1  # prctl(2)
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    main()
