"""P5: one tensor of 4 MiB out of a large file, beside the pull of the file; both by the Python client."""

import os
from pathlib import Path

from bench.figures import Row, Samples
from bench.finetuned import write_model
from strongroom.client import Client
from tests.stack import RunningStack

_TENSOR = 4 << 20
_MOST_FETCHED = 12 << 20
_FACTOR = 50.0


def measure(folder: Path, size: int, runs: int) -> list[Row]:
    """Reads other tensors of a file of `size` bytes than before, and pulls the file, `runs` times."""
    one, all_of_it = Samples("tensor"), Samples("pull")
    source, target = folder / "large.safetensors", folder / "large-target.safetensors"
    write_model(source, [os.urandom(_TENSOR) for _ in range(size // _TENSOR)])
    fetched = 0
    with (
        RunningStack(folder / "tensors", STRONGROOM_RATE_LIMIT="off") as stack,
        Client(stack.url, api_key=stack.admin_key) as client,
    ):
        client.models.push("large", source, version="v1")
        # The first read finds the way and opens the manifest, as one of an earlier tensor would have.
        client.models.tensor("large", "layers.0", version="v1")
        for run in range(runs):
            before = _bytes_read(stack.state["pids"]["models"])
            with one.timed():
                found = client.models.tensor("large", f"layers.{(run + 1) * 7}", version="v1")
            fetched = max(fetched, _bytes_read(stack.state["pids"]["models"]) - before)
            if len(found.data) != _TENSOR:
                raise RuntimeError("that is not the tensor")
            with all_of_it.timed():
                client.models.pull("large", target, version="v1")
            target.unlink()
    factor = all_of_it.median / one.median
    what = f"one tensor of 4 MiB out of {size / (1 << 30):g} GiB"
    return [
        Row(
            "P5", f"{what}: read by the service", f"{fetched / (1 << 20):.1f} MiB", "≤ 12 MiB", fetched <= _MOST_FETCHED
        ),
        Row(
            "P5",
            f"{what}: {one.median * 1000:.0f} ms, the file {all_of_it.median:.2f} s",
            f"{factor:.0f} × faster",
            f"≥ {_FACTOR:g} ×",
            factor >= _FACTOR,
        ),
    ]


def _bytes_read(pid: int) -> int:
    """Bytes the process has read by any system call, from files and sockets alike (proc_pid_io(5))."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])
