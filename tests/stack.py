"""A whole Strongroom as a user starts it: `strongroom up` in a process of its own, on free loopback ports."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

STRONGROOM = Path(sys.executable).parent / "strongroom"
# With it ends what a start says of itself.
LAST_LINE = b"  stop        Ctrl-C\n"


@dataclass(frozen=True)
class Stack:
    """Where a running Strongroom is, and the key of its administrator."""

    url: str
    admin_key: str
    data_dir: Path

    @property
    def target(self) -> str:
        """host:port for gRPC."""
        return self.url.partition("://")[2]

    @property
    def state(self) -> dict:
        """What the supervisor knows of its parts: ports and process ids."""
        return json.loads((self.data_dir / "run" / "state.json").read_text())

    def dump(self) -> str:
        return json.dumps({"url": self.url, "admin_key": self.admin_key, "data_dir": str(self.data_dir)})

    @classmethod
    def load(cls, text: str) -> "Stack":
        fields = json.loads(text)
        return cls(fields["url"], fields["admin_key"], Path(fields["data_dir"]))


class RunningStack:
    """Starts `strongroom up` and ends it with the block."""

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *,
        measured: bool = False,
        ca_file: Path | None = None,
        **environment: str,
    ) -> None:
        self.data_dir = data_dir
        # The authority of one that speaks https.
        self.ca_file = ca_file
        # Coverage takes a quarter of a start's time; it sees the same code in the stack that all tests share.
        self.measured = measured
        self.port = port or free_port()
        # A test asks more often than a client may; those about the limit name one.
        self.environment = {"STRONGROOM_RATE_LIMIT": "off"} | environment
        self.output = data_dir.parent / f"{data_dir.name}.out"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 60) -> Stack:
        """Returns once /health answers 200 and all is printed that a start says."""
        command = [str(STRONGROOM), "up", "--data-dir", str(self.data_dir), "--port", str(self.port)]
        kept = inherited(measured=self.measured)
        with self.output.open("ab") as output:
            said = output.tell()
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=kept | self.environment, start_new_session=True
            )
        url = f"{'https' if self.ca_file else 'http'}://127.0.0.1:{self.port}"
        deadline = time.monotonic() + seconds
        while not (_healthy(url, self.ca_file) and LAST_LINE in self.output.read_bytes()[said:]):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"strongroom up did not get healthy:\n{self.report()}")
            time.sleep(0.05)
        return Stack(url, (self.data_dir / "admin.key").read_text().strip(), self.data_dir)

    def stop(self) -> int:
        """Ctrl-C, as a user ends it. Returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"strongroom up did not stop:\n{self.report()}") from None

    def report(self) -> str:
        """What it printed, and the ends of its logs."""
        logs = sorted((self.data_dir / "logs").glob("*.log")) if (self.data_dir / "logs").is_dir() else []
        ends = [f"--- {log.name}\n" + log.read_text(errors="replace")[-3000:] for log in logs]
        return self.output.read_text(errors="replace")[-3000:] + "\n".join(ends)

    def __enter__(self) -> Stack:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def inherited(*, measured: bool = False) -> dict[str, str]:
    """The environment for a program that a test starts: nothing of Strongroom's, nor of coverage's unless measured."""
    left_out = ("STRONGROOM_",) if measured else ("STRONGROOM_", "COV")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _healthy(url: str, ca_file: Path | None) -> bool:
    try:
        context = ssl.create_default_context(cafile=str(ca_file)) if ca_file else None
        with urllib.request.urlopen(f"{url}/health", timeout=2, context=context) as answer:  # noqa: S310 - always our own URL
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
