"""One part of Strongroom as a child process that never outlives its parent. Linux."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1


@dataclass
class Part:
    """A service or the gateway. `open_log` gives a descriptor for its output, which `start` closes."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    open_log: Callable[[str], int]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0

    def start(self) -> None:
        """Starts the process, in a session of its own: Ctrl-C in the terminal reaches the supervisor alone."""
        log = self.open_log(self.name)
        try:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent(),  # safe: this process has one thread
            )
        finally:
            os.close(log)
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def outcome(self) -> str:
        """How the process ended, in words."""
        assert self.process is not None
        code = self.process.returncode
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def send(self, number: signal.Signals) -> None:
        """Sends a signal if the process still runs."""
        if self.running and self.process is not None:
            self.process.send_signal(number)


def _die_with_parent() -> Callable[[], None]:
    """What the child does before it becomes the part.

    prctl(2): the kernel kills it when the parent ends, by kill -9 too.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if os.getppid() != parent:  # it ended before the kernel knew
            os._exit(1)

    return prepare


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none. With its pid it names the process."""
    try:
        # proc_pid_stat(5): the name, in parentheses, may hold anything; the start time is field 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
