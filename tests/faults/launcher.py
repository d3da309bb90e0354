"""`python -m tests.faults.launcher`: starts services as fast as they must be started again here.

One process imports everything once; each line on standard input, as JSON, makes it fork one: `service`, its
`environment`, and the file that gets its `log`. The child goes on as `python -m services.<service>` does; its process
id is written to standard output. Nobody waits for the dead, and all of them end with whoever started this.
"""

import ctypes
import json
import os
import runpy
import signal
import sys

import services.auth.bootstrap
import services.models.bootstrap
import services.secrets.bootstrap  # noqa: F401 - as the others: for the children

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Not `for line in sys.stdin`, whose read-ahead a fork would inherit.
    while line := sys.stdin.buffer.raw.readline():  # type: ignore[attr-defined]
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _serve(order)
        os.write(1, f"{pid}\n".encode())


def _serve(order: dict[str, str | dict[str, str]]) -> None:
    _end_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(order["environment"])
    try:
        runpy.run_module(f"services.{order['service']}", run_name="__main__", alter_sys=True)
    finally:
        # The launcher's own way out is not the child's.
        sys.stdout.flush()
        os._exit(1 if sys.exc_info()[0] else 0)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
