"""P4: a fine-tuned copy of a safetensors file, a tenth of its tensors changed and its header longer."""

import json
import os
import struct
from pathlib import Path

from bench.figures import Row, Samples
from bench.ours import CommandLine
from strongroom.client import Client
from tests.stack import RunningStack

_TENSOR = 4 << 20
_SHARE, _TIME = 0.13, 0.35


def write_model(path: Path, tensors: list[bytes], note: str = "") -> None:
    """A safetensors file of tensors `layers.0`, `layers.1`, … of 32-bit numbers."""
    header: dict[str, object] = {"__metadata__": {"note": note}}
    position = 0
    for number, data in enumerate(tensors):
        offsets = [position, position + len(data)]
        header[f"layers.{number}"] = {"dtype": "F32", "shape": [len(data) // 4], "data_offsets": offsets}
        position += len(data)
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(tensors)


def measure(folder: Path, size: int, runs: int) -> list[Row]:
    """Pushes a new model of `size` bytes and a fine-tuned copy of it, `runs` times."""
    first, second = Samples("first"), Samples("second")
    shares_sent, shares_stored = [], []
    base, tuned = folder / "base.safetensors", folder / "tuned.safetensors"
    with (
        RunningStack(folder / "finetuned", STRONGROOM_RATE_LIMIT="off") as stack,
        Client(stack.url, api_key=stack.admin_key) as client,
    ):
        ours = CommandLine(stack)
        packs = stack.data_dir / "weights" / "packs"
        for run in range(runs):
            tensors = [os.urandom(_TENSOR) for _ in range(size // _TENSOR)]
            write_model(base, tensors)
            tensors[::10] = [os.urandom(_TENSOR) for _ in tensors[::10]]
            write_model(tuned, tensors, "fine-tuned " * 500)
            del tensors
            os.sync()
            with first.timed():
                ours.push("base", f"v{run}", base)
            plan = client.models.plan_push("tuned", tuned)
            before = _bytes_in(packs)
            with second.timed():
                ours.push("tuned", f"v{run}", tuned)
            shares_sent.append((plan.total - plan.done) / plan.total)
            shares_stored.append((_bytes_in(packs) - before) / plan.total)
            for name in ("base", "tuned"):
                ours.remove(name, f"v{run}")
    sent, stored, ratio = max(shares_sent), max(shares_stored), second.median / first.median
    what = f"a fine-tuned copy of {size / (1 << 30):g} GiB"
    return [
        Row("P4", f"{what}: bytes sent", f"{sent:.1%}", f"≤ {_SHARE:.0%}", sent <= _SHARE),
        Row("P4", f"{what}: bytes stored", f"{stored:.1%}", f"≤ {_SHARE:.0%}", stored <= _SHARE),
        Row(
            "P4",
            f"{what}: time of its push ({second.median:.2f} s)",
            f"{ratio:.2f} × the first",
            f"≤ {_TIME:g} ×",
            ratio <= _TIME,
        ),
    ]


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
