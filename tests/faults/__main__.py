"""Runs the mixed load while parts fail, and tells what came of it. Ends with 1 if something acknowledged was lost, read
by somebody who may not, answered with an error that is not documented, or away for more than ten seconds.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests import postgresql
from tests.faults.chaos import Chaos
from tests.faults.installation import Installation

_SECONDS = 300


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seconds", type=int, default=_SECONDS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--logs", type=Path, help="an empty folder, in which the logs of all parts are left")
    options = parser.parse_args()
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {line}", flush=True)  # noqa: T201

    tell(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="strongroom-faults-") as name, postgresql.running() as server:
        folder = options.logs or Path(name)
        with Installation(folder, server.create_database(), with_lines=True) as installation:
            report = Chaos(installation, options.seed, tell).run(options.seconds)
    print(report)  # noqa: T201
    sys.exit(bool(report.violations))


if __name__ == "__main__":
    main()
