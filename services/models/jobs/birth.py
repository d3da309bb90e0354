"""The nursery of a service: started when the first job needs it, and again if it is gone."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from services.models.runners.nursery import MESSAGE

# Seconds between two looks at whether to go on waiting: to load what jobs need takes some.
_TICK = 0.1
_ANSWER_SECONDS = 120.0
# Numerical libraries would start a thread for each processor: a job is one slot's share of the machine.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")


class NurseryLost(Exception):
    """It is gone, and with it every process that it had made."""


class Nursery:
    """Makes and ends jobs' processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def spawn(self, folder: str, descriptors: Sequence[int], watch: Callable[[], None], *, load: bool) -> "Child":
        """A process with its input, output and answers; with `load` it has scikit-learn.

        Raises NurseryLost, and what `watch` raises meanwhile.
        """
        with self._mine(watch):
            if self._process is None or self._process.poll() is not None or self._control is None:
                self._start()
            assert self._process is not None
            interrupted: list[BaseException] = []

            def look() -> None:
                # The answer is waited for all the same: it would come to the next who asks.
                if not interrupted:
                    try:
                        watch()
                    except BaseException as error:
                        interrupted.append(error)

            answer = self._ask({"spawn": folder, "load": load}, descriptors, look)
            if interrupted:
                self._ask({"end": answer["pid"]}, (), lambda: None)
                raise interrupted[0]
            return Child(int(answer["pid"]), self._process)

    def end(self, child: "Child") -> int | None:
        """Kills it if it is there still; its exit status, negative for a signal, or None if its nursery is gone."""
        with self._lock:
            if self._process is not child.nursery or self._control is None:
                return None
            with suppress(NurseryLost):
                return int(self._ask({"end": child.pid}, (), lambda: None)["status"])
            return None

    def close(self) -> None:
        """Ends it with all of its processes."""
        with self._lock:
            self._forget()

    def _ask(self, request: Mapping[str, Any], descriptors: Sequence[int], watch: Callable[[], None]) -> dict[str, Any]:
        assert self._control is not None
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], list(descriptors))
            waited = 0.0
            while waited < _ANSWER_SECONDS:
                try:
                    message = self._control.recv(MESSAGE)
                except TimeoutError:
                    waited += _TICK
                    watch()
                    continue
                if message:
                    answer: dict[str, Any] = json.loads(message)
                    return answer
                break
        except OSError:
            pass
        self._forget()
        raise NurseryLost

    @contextmanager
    def _mine(self, watch: Callable[[], None]) -> Iterator[None]:
        while not self._lock.acquire(timeout=_TICK):
            watch()
        try:
            yield
        finally:
            self._lock.release()

    def _start(self) -> None:
        self._forget()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "services.models.runners.nursery", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=tempfile.gettempdir(),
                env=_environment(),
                start_new_session=True,
            )
        ours.settimeout(_TICK)
        self._control = ours

    def _forget(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Child:
    """A job's process, and the nursery that made it."""

    def __init__(self, pid: int, nursery: "subprocess.Popen[bytes]") -> None:
        self.pid = pid
        self.nursery = nursery


def _environment() -> dict[str, str]:
    """All that jobs see of an environment: nothing of this process's own."""
    return {
        **dict.fromkeys(_ONE_THREAD, "1"),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PATH": "/usr/bin:/bin",
        "HOME": tempfile.gettempdir(),
        "LANG": "C.UTF-8",
        "JOBLIB_MULTIPROCESSING": "0",
    }
