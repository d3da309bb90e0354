"""The command `strongroom`, forked from a process that has imported it already.

The documents type some two hundred commands, and most of what one costs is the start of Python and the imports. Here
each still is a process of its own, with arguments, environment, folder, files and exit status as typed.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LARGEST = 1 << 20
# Passes on what it was called with, and ends as the command ends. Without `site`, it starts in a few milliseconds.
_SHIM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({path!r})
    call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(line, [len(call).to_bytes(4, "big")], [0, 1, 2])
    line.sendall(call)
    sys.exit(int(line.recv(8)))
"""


@contextmanager
def command(folder: Path) -> Iterator[Path]:
    """A folder with `strongroom` in it, for PATH."""
    path = folder / "line"
    shims = folder / "bin"
    shims.mkdir()
    shim = shims / "strongroom"
    shim.write_text(_SHIM.format(python=sys.executable, path=str(path)))
    shim.chmod(0o700)
    server = subprocess.Popen([sys.executable, "-m", "tests.prestarted", str(path)])
    try:
        while not path.exists():
            assert server.poll() is None, "it did not start"
            time.sleep(0.01)
        yield shims
    finally:
        server.kill()
        server.wait()


def serve(path: Path) -> None:
    """Forks a command for each connection, until it is killed."""
    import strongroom.cli
    import strongroom.client  # noqa: F401 - commands import it when they are called

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        # Whoever sees the path can connect.
        listener.bind(f"{path}.new")
        listener.listen()
        Path(f"{path}.new").rename(path)
        while True:
            line, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(line)
            line.close()


def _answer(line: socket.socket) -> None:
    """Runs the command in a process of its own, which may become another program, and tells how it ended."""
    size, files, _, _ = socket.recv_fds(line, 4, 3)
    call = b""
    while len(call) < int.from_bytes(size, "big") <= _LARGEST:
        call += line.recv(_LARGEST)
    running = os.fork()
    if running == 0:
        _run(*json.loads(call), files)
    _, status = os.waitpid(running, 0)
    line.sendall(str(os.waitstatus_to_exitcode(status) % 256).encode())
    os._exit(0)


def _run(arguments: list[str], folder: str, environment: dict[str, str], files: list[int]) -> None:
    from strongroom.cli import main

    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["strongroom", *arguments]
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
