"""A runner that tries what a job must not do. Each config says which; what it achieves is its prediction's columns."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from strongroom.runners import Table, Task


class HostileRunner:
    """Trains by doing harm: `act` names it, `at` says where."""

    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {"act": {"type": "string"}, "at": {"type": "string"}, "number": {"type": "number"}},
    }
    trusted: ClassVar[Sequence[str]] = ()

    def train(self, task: Task, data: Table) -> dict[str, str]:
        act: Callable[[Mapping[str, Any]], object] = globals()[f"_{task.config.get('act', 'nothing')}"]
        task.progress(0.5)
        try:
            return {"achieved": str(act(task.config))}
        except OSError as error:
            sys.stderr.write(f"refused: {type(error).__name__}\n")
            return {"achieved": ""}

    def predict(self, task: Task, model: dict[str, str], historic: Table, future: Table) -> Table:
        return future.with_column("sample_0", [model["achieved"]] * len(future.rows))


def _nothing(config: Mapping[str, Any]) -> str:
    return "done"


def _sleep(config: Mapping[str, Any]) -> str:
    sys.stderr.write("sleeping\n")
    time.sleep(config["number"])
    return "slept"


def _loop(config: Mapping[str, Any]) -> str:
    while True:
        pass


def _hog(config: Mapping[str, Any]) -> str:
    return str(len([bytearray(64 << 20) for _ in range(1000)]))


def _die(config: Mapping[str, Any]) -> str:
    ctypes.string_at(0)
    return "alive"


def _read(config: Mapping[str, Any]) -> bytes:
    return Path(config["at"]).read_bytes()


def _write(config: Mapping[str, Any]) -> int:
    return Path(config["at"]).write_bytes(b"written by a job")


def _link(config: Mapping[str, Any]) -> bytes:
    Path("link").symlink_to(config["at"])
    return Path("link").read_bytes()


def _fill(config: Mapping[str, Any]) -> str:
    for number in range(100_000):
        Path(f"file-{number}").write_bytes(bytes(1 << 20))
        time.sleep(0.001)
    return "filled"


def _bury(config: Mapping[str, Any]) -> str:
    """More than there may be, where no path leads."""
    sys.stderr.write(f"{os.environ['HOME']}\n")
    for _ in range(30):
        Path("d" * 200).mkdir()
        os.chdir("d" * 200)
    for number in range(100):
        Path(f"file-{number}").write_bytes(bytes(1 << 20))
    time.sleep(20)
    return "buried"


def _litter(config: Mapping[str, Any]) -> str:
    """Folders in folders, which nobody may look into."""
    sys.stderr.write(f"{os.environ['HOME']}\n")
    for _ in range(1500):
        Path("d").mkdir(mode=0o300)
        os.chdir("d")
    Path("closed").mkdir(mode=0)
    return "littered"


def _swarm(config: Mapping[str, Any]) -> str:
    """Folders without number, none of which has a file."""
    for number in range(1_000_000):
        Path(f"d{number}").mkdir()
        if not number % 100:
            time.sleep(0.01)  # more of them show no more, and have to be removed
    return "swarmed"


def _say(config: Mapping[str, Any]) -> str:
    """A text that no message may have."""
    return "\ud800"


def _answer(config: Mapping[str, Any]) -> str:
    """In the runner's place, in these words."""
    body = config["at"].encode()
    os.write(3, b"R" + len(body).to_bytes(8, "big") + body)
    time.sleep(5)
    return "answered"


def _fork(config: Mapping[str, Any]) -> int:
    return os.fork()


def _run(config: Mapping[str, Any]) -> bytes:
    return subprocess.check_output(["/bin/sh", "-c", "id"])


def _connect(config: Mapping[str, Any]) -> str:
    with socket.create_connection(("127.0.0.1", int(config["number"])), timeout=5):
        return "connected"


def _kill(config: Mapping[str, Any]) -> str:
    os.kill(int(config["number"]), signal.SIGKILL)
    return "killed"


def _tgkill(config: Mapping[str, Any]) -> str:
    other = int(config["number"])
    return _called(234, other, other, signal.SIGKILL)


def _limit_other(config: Mapping[str, Any]) -> str:
    import resource

    resource.prlimit(int(config["number"]), resource.RLIMIT_NOFILE, (0, 0))
    return "limited"


def _pin_other(config: Mapping[str, Any]) -> str:
    os.sched_setaffinity(int(config["number"]), {0})
    return "pinned"


def _mode(config: Mapping[str, Any]) -> str:
    Path(config["at"]).chmod(0o777)
    return "opened to all"


def _touch(config: Mapping[str, Any]) -> str:
    os.utime(config["at"], (0, 0))
    return "touched"


def _own(config: Mapping[str, Any]) -> str:
    os.chown(config["at"], os.getuid(), os.getgid())
    return "owned"


def _cut(config: Mapping[str, Any]) -> str:
    os.truncate(config["at"], 0)
    return "cut"


def _attribute(config: Mapping[str, Any]) -> str:
    os.setxattr(config["at"], "user.a", b"b")
    return "attributed"


def _remove(config: Mapping[str, Any]) -> str:
    Path(config["at"]).unlink()
    return "removed"


def _move(config: Mapping[str, Any]) -> str:
    Path(config["at"]).rename("moved")
    return "moved"


def _called(number: int, *arguments: int) -> str:
    """A system call by its number on x86-64."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "called"


def _threads(config: Mapping[str, Any]) -> str:
    with ThreadPoolExecutor(4) as threads:
        return ",".join(threads.map(str, range(4)))


def _environment(config: Mapping[str, Any]) -> str:
    return ",".join(sorted(os.environ))


def _descriptors(config: Mapping[str, Any]) -> str:
    return ",".join(sorted(entry.name for entry in Path("/proc/self/fd").iterdir()))


def _raise_limits(config: Mapping[str, Any]) -> str:
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError:
        raise PermissionError from None
    return "raised"


def _disturb(config: Mapping[str, Any]) -> str:
    os.write(3, b"R\xff\xff\xff\xff\xff\xff\xff\xffnonsense")
    time.sleep(5)
    return "answered"


def _ask(config: Mapping[str, Any]) -> str:
    """For a range of a file, in these words."""
    body = config["at"].encode()
    os.write(3, b"W" + len(body).to_bytes(8, "big") + body)
    time.sleep(5)
    return "asked"


def _chatter(config: Mapping[str, Any]) -> str:
    for number in range(50_000):
        sys.stderr.write(f"line {number} \x00\x1b[2J\n")
    return "said"
