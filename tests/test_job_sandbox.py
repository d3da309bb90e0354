"""What seccomp refuses by itself: signals, of which Landlock knows nothing before Linux 6.12, and to live on alone."""

import subprocess
import sys

import pytest

_SCRIPT = """
import fcntl, os, signal, sys, time
from services.models.runners import sandbox

reader, writer = os.pipe()
leash, held = os.pipe()
victim = os.fork()
if not victim:
    os.close(held)
    os.read(leash, 1)  # until whoever made it is gone
    os._exit(0)
assert sandbox._LIBC.prctl(sandbox._PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
if sys.argv[1] == "shut in":
    sandbox._seccomp()
fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_NONBLOCK)
for order, value in ((fcntl.F_SETOWN, victim), (fcntl.F_SETSIG, signal.SIGKILL), (15, b"\\1\\0\\0\\0\\1\\0\\0\\0")):
    try:
        fcntl.fcntl(reader, order, value)
    except PermissionError:
        print("refused", order)
fcntl.fcntl(reader, fcntl.F_SETOWN, victim) if sys.argv[1] != "shut in" else None
fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
os.write(writer, b"now")
time.sleep(0.2)
print("alive" if os.waitpid(victim, os.WNOHANG) == (0, 0) else "killed")
"""


def _tried(how: str) -> list[str]:
    command = [sys.executable, "-c", _SCRIPT, how]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


@pytest.mark.row("S1.3")
def test_no_file_is_made_to_signal_another_process() -> None:
    """fcntl(2): what happens to a pipe can be told to any process of this user by any signal, SIGKILL too."""
    assert _tried("shut in") == ["refused 8", "refused 10", "refused 15", "alive"]


def test_without_it_the_other_process_is_killed() -> None:
    assert _tried("free")[-1] == "killed"


_ORPHAN = """
import os, sys
from services.models.runners import sandbox

leash, held = os.pipe()  # ends with the last process that has it
nursery = os.getpid()
if not os.fork():
    os.close(leash)
    sandbox.die_with_parent(nursery)
    if sys.argv[1] == "shut in":
        assert sandbox._LIBC.prctl(sandbox._PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        sandbox._seccomp()
    told = sandbox._LIBC.prctl(sandbox._PR_SET_PDEATHSIG, 0, 0, 0, 0)
    print("refused" if told else "done", flush=True)
    os.write(held, b"x")
    os.read(0, 1)
    print("outlived it", flush=True)
    os._exit(0)
os.read(leash, 1)
"""


def _left(how: str) -> list[str]:
    command = [sys.executable, "-c", _ORPHAN, how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.wait(timeout=60)
        # Whoever is left hears of it, and speaks.
        return process.communicate(timeout=60)[0].splitlines()


@pytest.mark.row("S1.3")
def test_no_job_outlives_what_made_it() -> None:
    """prctl(2): the signal at the parent's death is given up with one call, and whoever is killed next to it stays."""
    assert _left("shut in") == ["refused"]


def test_without_it_a_job_stays() -> None:
    assert _left("free") == ["done", "outlived it"]
