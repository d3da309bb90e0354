"""What runs now: for tests and tooling, and for the next start if this one ends without a farewell."""

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from strongroom.local.layout import Layout, write_private
from strongroom.local.process import start_time

_END_SECONDS = 10.0


@dataclass
class State:
    """Kept in `run/state.json`. Ports, process ids and start times (clock ticks since boot) are by part."""

    url: str
    sockets: str
    ports: dict[str, int]
    metrics: dict[str, int]
    # The address under which others hear callers speak in the clear; empty if none do.
    overheard: str = ""
    supervisor: int = field(default_factory=os.getpid)
    boot: str = field(default_factory=lambda: _boot_id())
    pids: dict[str, int] = field(default_factory=dict)
    started: dict[str, int] = field(default_factory=dict)

    def record(self, name: str, pid: int) -> None:
        """Notes that a part runs as this process."""
        self.pids[name] = pid
        self.started[name] = start_time(pid) or 0

    def save(self, layout: Layout) -> None:
        write_private(layout.state, json.dumps(asdict(self), indent=2) + "\n")


def end_leftovers(layout: Layout) -> None:
    """Ends what a killed supervisor may have left behind. Call it with the lock held: then none of it is in use."""
    try:
        state = State(**json.loads(layout.state.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return
    # The kernel ends the parts with the supervisor; this is for the moment in which it still does. A pid alone could by
    # now be somebody else's process; with its start time, and since the same boot, it is the one we started.
    same_boot = state.boot == _boot_id()
    left = {pid: started for name, pid in state.pids.items() if same_boot and (started := state.started.get(name))}
    for pid, started in left.items():
        if start_time(pid) == started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _END_SECONDS
    while any(start_time(pid) == started for pid, started in left.items()) and time.monotonic() < deadline:
        time.sleep(0.01)
    remove_sockets(layout, Path(state.sockets))
    layout.state.unlink(missing_ok=True)


def remove_sockets(layout: Layout, sockets: Path) -> None:
    """Removes the folder of the sockets if it is one outside of the data directory."""
    if layout.owns(sockets):
        shutil.rmtree(sockets, ignore_errors=True)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
