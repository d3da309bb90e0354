"""A job's process: started, fed, watched, ended. Nothing of it is left when `run` returns."""

import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from services.models.jobs.birth import Nursery, NurseryLost
from services.models.runners import frames
from services.models.runners.frames import FrameBroken

# Seconds between two looks at whether it is to go on, and at how much it has written.
_TICK = 0.1
_LOOK_SECONDS = 1.0
# Frames that wait to be taken: pieces of a megabyte.
_WAITING = 4
# Lines of its log that wait to be taken, and bytes of one; further ones are left out.
_MOST_LINES = 1000
_LINE = 4096
# Seconds of processor time beyond the job's: the clock ends it first.
_SPARE_SECONDS = 5


class ProcessKilled(Exception):
    """It ended without an answer: killed, by whomever."""


class ProcessTimeout(Exception):
    """It took longer than it may."""


class FolderFull(Exception):
    """It has written more files than it may."""


@dataclass(frozen=True)
class ProcessSettings:
    """What jobs' processes may use: bytes of address space and of files. `hidden` are this installation's folders."""

    memory: int
    folder_bytes: int
    isolated: bool
    hidden: tuple[Path, ...]


@dataclass(frozen=True)
class _Pipes:
    """Our ends. Each is closed by the thread at it, once the process is gone."""

    input: BinaryIO
    output: BinaryIO
    answers: BinaryIO

    def close(self) -> None:
        for end in (self.input, self.output, self.answers):
            end.close()


class Process:
    """One process. `progress` is 0 to 1, `seconds` how long it ran. With `load` it is born with scikit-learn."""

    def __init__(
        self, nursery: Nursery, settings: ProcessSettings, task: Mapping[str, Any], timeout: float, *, load: bool
    ) -> None:
        self._load = load
        self._nursery = nursery
        self._settings = settings
        self._task = task
        self._timeout = timeout
        self._lines: list[str] = []
        self.progress = 0.0
        self.seconds = 0.0

    def take_lines(self) -> list[str]:
        """What it printed since this was asked last."""
        taken, self._lines = self._lines, []
        return taken

    def run(
        self,
        watch: Callable[[], None],
        model: Iterable[bytes | memoryview] = (),
        sink: Callable[[bytes], None] = lambda _: None,
    ) -> dict[str, Any]:
        """Runs it to its end and returns its answer.

        Args:
            watch: called ten times a second; what it raises ends the process.
            model: pieces of the model that goes in.
            sink: takes the pieces of the model that comes out.

        Raises ProcessKilled, ProcessTimeout, FolderFull, FrameBroken, and what `watch`, `model` or `sink` raises.
        """
        folder = Path(tempfile.mkdtemp(prefix="strongroom-job-"))
        began = time.monotonic()
        try:
            with self._born(folder, watch) as pipes:
                incoming: queue.Queue[tuple[bytes, bytes] | Exception] = queue.Queue(_WAITING)
                failed: list[Exception] = []
                _begin(self._feed, pipes.input, self._whole_task(folder), model, failed)
                _begin(self._listen, pipes.output)
                _begin(_receive, pipes.answers, incoming)
                return self._follow(folder, incoming, failed, watch, sink)
        except NurseryLost:
            raise ProcessKilled from None
        finally:
            self.seconds = time.monotonic() - began
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _born(self, folder: Path, watch: Callable[[], None]) -> "Iterator[_Pipes]":
        """The process, by what it is spoken to. It ends with the block, and so do the threads at its pipes."""
        (their_input, our_input), (our_output, their_output), (our_answers, their_answers) = (
            os.pipe(),
            os.pipe(),
            os.pipe(),
        )
        pipes = _Pipes(os.fdopen(our_input, "wb"), os.fdopen(our_output, "rb"), os.fdopen(our_answers, "rb"))
        theirs = (their_input, their_output, their_answers)
        try:
            child = self._nursery.spawn(str(folder), theirs, watch, load=self._load)
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

    def _follow(
        self,
        folder: Path,
        incoming: "queue.Queue[tuple[bytes, bytes] | Exception]",
        failed: list[Exception],
        watch: Callable[[], None],
        sink: Callable[[bytes], None],
    ) -> dict[str, Any]:
        deadline, look = time.monotonic() + self._timeout, time.monotonic()
        while True:
            watch()
            if failed:
                raise failed[0]
            now = time.monotonic()
            if now > deadline:
                raise ProcessTimeout
            if now > look:
                look = now + _LOOK_SECONDS
                if _size(folder) > self._settings.folder_bytes:
                    raise FolderFull
            try:
                came = incoming.get(timeout=_TICK)
            except queue.Empty:
                continue
            if isinstance(came, Exception):
                raise came
            kind, body = came
            if kind == frames.MODEL:
                sink(body)
            elif kind == frames.PROGRESS:
                self.progress = _share(frames.parse_json(body).get("done"))
            elif kind == frames.RESULT:
                return frames.parse_json(body)
            elif kind == frames.END:
                raise ProcessKilled
            else:
                raise FrameBroken("unknown")

    def _whole_task(self, folder: Path) -> dict[str, Any]:
        limits = {
            "memory": self._settings.memory,
            "seconds": int(self._timeout) + _SPARE_SECONDS,
            "file_size": self._settings.folder_bytes,
        }
        hidden = [str(path) for path in self._settings.hidden]
        around = {"limits": limits, "isolated": self._settings.isolated, "folder": str(folder), "hidden": hidden}
        return {**self._task, **around}

    def _feed(
        self,
        stream: BinaryIO,
        task: Mapping[str, Any],
        model: Iterable[bytes | memoryview],
        failed: list[Exception],
    ) -> None:
        try:
            with stream:
                frames.write_json(stream, frames.TASK, task)
                for piece in model:
                    for start in range(0, len(piece), frames.PIECE):
                        frames.write(stream, frames.MODEL, piece[start : start + frames.PIECE])
                frames.write(stream, frames.END, b"")
        except BrokenPipeError:
            pass  # it ended; what it has said about that is read elsewhere
        except Exception as error:  # the model could not be read
            failed.append(error)

    def _listen(self, stream: BinaryIO) -> None:
        with stream:
            for line in iter(lambda: stream.readline(_LINE), b""):
                text = line.decode(errors="replace").rstrip()
                if text and len(self._lines) < _MOST_LINES:
                    self._lines.append(text.replace("\0", ""))


def _begin(target: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, name="job-pipe", daemon=True).start()


def _receive(stream: BinaryIO, incoming: "queue.Queue[tuple[bytes, bytes] | Exception]") -> None:
    kind = b""
    with stream:
        while kind not in (frames.END, frames.RESULT):
            try:
                kind, body = frames.read(stream)
            except FrameBroken as error:
                incoming.put(error)
                return
            incoming.put((kind, body))


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, which are changing."""
    total = 0
    for name, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(name, file)).st_blocks * 512  # noqa: PTH118 - many of them
    return total


def _share(value: object) -> float:
    return min(1.0, max(0.0, value)) if isinstance(value, float | int) else 0.0
