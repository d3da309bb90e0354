"""Jobs' processes on this machine: forked by the nursery, spoken to over pipes. Nothing of one is left when it ends."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from services.models.jobs import folders
from services.models.jobs.birth import Nursery, NurseryLost
from services.models.jobs.links import LinkClosed, ProcessKilled, ProcessSettings
from services.models.runners import frames
from services.models.runners.frames import FrameBroken

# Seconds between two looks at how much it has written.
_LOOK_SECONDS = 1.0
# Seconds for its last lines: only a process of its own, which isolation forbids, could hold the pipe longer.
_LAST_SECONDS = 2.0
# Frames that wait to be taken: pieces of a megabyte.
_WAITING = 4
# Lines of its log that wait to be taken, and bytes of one; further ones are left out.
_MOST_LINES = 1000
_LINE = 4096


class LocalProcesses:
    """A `Place`."""

    def __init__(self, settings: ProcessSettings) -> None:
        self._settings = settings
        self._nursery = Nursery()
        folders.sweep()

    @contextmanager
    def start(self, watch: Callable[[], None], seconds: int, *, load: bool) -> Iterator["LocalLink"]:
        with folders.made() as folder:
            link = None
            try:
                with self._born(folder, watch, load=load) as pipes:
                    link = LocalLink(folder, self._settings, seconds, pipes)
                    yield link
            except NurseryLost:
                raise ProcessKilled from None
            finally:
                if link is not None:
                    link.hear_out()

    def close(self) -> None:
        self._nursery.close()

    @contextmanager
    def _born(self, folder: Path, watch: Callable[[], None], *, load: bool) -> "Iterator[_Pipes]":
        """The process, by what it is spoken to. It ends with the block, and so do the threads at its pipes."""
        (their_input, our_input), (our_output, their_output), (our_answers, their_answers) = (
            os.pipe(),
            os.pipe(),
            os.pipe(),
        )
        pipes = _Pipes(os.fdopen(our_input, "wb"), os.fdopen(our_output, "rb"), os.fdopen(our_answers, "rb"))
        theirs = (their_input, their_output, their_answers)
        try:
            child = self._nursery.spawn(str(folder), theirs, watch, load=load)
        except BaseException:
            pipes.close()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        try:
            yield pipes
        finally:
            self._nursery.end(child)
            with suppress(BrokenPipeError):
                pipes.input.close()


@dataclass(frozen=True)
class _Pipes:
    """Our ends. Those that are read are closed by the thread at it, once the process is gone."""

    input: BinaryIO
    output: BinaryIO
    answers: BinaryIO

    def close(self) -> None:
        for end in (self.input, self.output, self.answers):
            end.close()


class LocalLink:
    """A `Link`."""

    def __init__(self, folder: Path, settings: ProcessSettings, seconds: int, pipes: _Pipes) -> None:
        self._folder = folder
        self._most_bytes = settings.folder_bytes
        self._input = pipes.input
        self._incoming: queue.Queue[tuple[bytes, bytes] | FrameBroken] = queue.Queue(_WAITING)
        self._lines: list[str] = []
        self._look = time.monotonic() + _LOOK_SECONDS
        limits = {"memory": settings.memory, "seconds": seconds, "file_size": settings.folder_bytes}
        hidden = [str(path) for path in settings.hidden]
        self.around: Mapping[str, Any] = {
            "limits": limits,
            "isolated": settings.isolated,
            "folder": str(folder),
            "hidden": hidden,
        }
        self._listener = threading.Thread(target=self._listen, args=(pipes.output,), name="job-pipe", daemon=True)
        self._listener.start()
        threading.Thread(target=self._receive, args=(pipes.answers,), name="job-pipe", daemon=True).start()

    def send(self, kind: bytes, body: bytes | memoryview) -> None:
        try:
            frames.write(self._input, kind, body)
            self._input.flush()
        except (BrokenPipeError, ValueError):  # ValueError: it is closed, for the process has ended
            raise LinkClosed from None

    def receive(self, seconds: float) -> tuple[bytes, bytes] | None:
        now = time.monotonic()
        if now > self._look:
            self._look = now + _LOOK_SECONDS
            folders.check(self._folder, self._most_bytes)
        try:
            came = self._incoming.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(came, FrameBroken):
            raise came
        if came[0] == frames.END:
            raise ProcessKilled
        return came

    def hear_out(self) -> None:
        """Waits for the last lines of a process that has ended."""
        self._listener.join(_LAST_SECONDS)

    def take_lines(self) -> list[str]:
        taken, self._lines = self._lines, []
        return taken

    def _listen(self, stream: BinaryIO) -> None:
        with stream:
            for line in iter(lambda: stream.readline(_LINE), b""):
                text = line.decode(errors="replace").rstrip()
                if text and len(self._lines) < _MOST_LINES:
                    self._lines.append(text.replace("\0", ""))

    def _receive(self, stream: BinaryIO) -> None:
        kind = b""
        with stream:
            while kind not in (frames.END, frames.RESULT):
                try:
                    kind, body = frames.read(stream)
                except FrameBroken as error:
                    self._incoming.put(error)
                    return
                self._incoming.put((kind, body))
