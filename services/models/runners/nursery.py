"""`python -m services.models.runners.nursery`: where jobs' processes are born.

To load scikit-learn takes seconds, which each job would spend. This process loads it once, for the first job that needs
it, and forks for each: it has one thread, no secret, a clean environment, and does nothing else. A child shuts itself
in (`sandbox`) before it runs anybody's code. The service asks over a socket, one request and one answer at a time:

    {"spawn": FOLDER, "load": BOOLEAN} with three descriptors: input, output, answers  →  {"pid": PID}
    {"end": PID}                                                                       →  {"status": STATUS}

A child is waited for only by `end`, so until then its number is nobody else's. It dies with this process, and this
process ends with the service: then nobody is at the other end of the socket.
"""

import gc
import json
import os
import signal
import socket
import sys
from contextlib import suppress

from services.models.runners import host, sandbox

MESSAGE = 4096
_DESCRIPTORS = 3


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(control, MESSAGE, _DESCRIPTORS)
        except OSError:
            return
        if not message:
            return
        request = json.loads(message)
        if "end" in request:
            answer = {"status": _end(request["end"])}
        else:
            if request["load"]:
                _load()
            answer = {"pid": _fork(request["spawn"], descriptors)}
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(json.dumps(answer).encode())


def _load() -> None:
    """What every job of the built-in runner would load; a second time does nothing."""
    if "skops.io" in sys.modules:
        return
    from services.models.runners import scikit  # noqa: F401

    with suppress(ImportError):
        import skops.io  # noqa: F401

        from services.models.runners import parquet  # noqa: F401
    gc.collect()
    gc.freeze()  # what is shared stays shared


def _fork(folder: str, descriptors: list[int]) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        sandbox.die_with_parent(parent)
        os.setsid()
        source, output, answers = (os.dup(descriptor) for descriptor in descriptors)
        for number, descriptor in enumerate((source, output, output, answers)):
            os.dup2(descriptor, number)
        # The service's end of the control socket is not among what is inherited; ours is.
        os.closerange(4, 4096)
        os.chdir(folder)
        os.environ.update(HOME=folder, TMPDIR=folder)
        host.serve(0, 3)
        status = 0
    finally:
        # Whatever was raised: nothing of this process's own is to run again in its copy.
        os._exit(status)


def _end(child: int) -> int:
    """Its exit status, or that of the signal that killed it: ours, if it was there still."""
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)  # it has no group of its own yet
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
