"""A pseudo-terminal at which commands are typed and passwords are asked for."""

import os
import pty
import select
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress


class Dialogue:
    """A program at a terminal: wait for what it asks, type the answer. Its standard output may go elsewhere.

    Of a hidden answer name the question with its last space: what is typed before that is thrown away.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], *, catch_output: bool = False) -> None:
        self._ours, theirs = pty.openpty()
        output = subprocess.PIPE if catch_output else theirs
        self.process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=theirs,
            stdout=output,
            stderr=theirs,
            start_new_session=True,
            # It becomes the controlling terminal, where hidden input is asked for.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(theirs)
        self.shown = ""
        self._seen = 0

    def answer(self, question: str, text: str, seconds: float = 30) -> None:
        """Waits until the question stands on the screen, then types the text and Return."""
        deadline = time.monotonic() + seconds
        while question not in self.shown[self._seen :]:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"never asked {question!r}:\n{self.shown}")
        self._seen = len(self.shown)
        os.write(self._ours, f"{text}\n".encode())

    def end(self, seconds: float = 30) -> tuple[int, str]:
        """Exit status, and standard output if it was caught, else everything on the screen."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            pass
        out, _ = self.process.communicate(timeout=seconds)
        os.close(self._ours)
        return self.process.returncode, self.shown if out is None else out.decode()

    def _read(self, seconds: float) -> bool:
        if seconds <= 0 or not select.select([self._ours], [], [], seconds)[0]:
            return False
        data = b""
        with suppress(OSError):  # Linux reports the end of a terminal as an error of input
            data = os.read(self._ours, 65536)
        self.shown += data.decode(errors="replace")
        return bool(data)
