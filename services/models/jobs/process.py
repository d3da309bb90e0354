"""A job's process: started, fed, watched, ended."""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeGuard

from services.models.jobs.links import Link, LinkClosed, Place
from services.models.runners import frames
from services.models.runners.frames import FrameBroken

# Seconds between two looks at whether it is to go on.
_TICK = 0.1
# Seconds of processor time beyond the job's: the clock ends it first.
_SPARE_SECONDS = 5

# A range of a table that is kept in a file: its name in the task, offset and length, in bytes.
Ranges = Callable[[str, int, int], Iterable[bytes | memoryview]]


class ProcessTimeout(Exception):
    """It took longer than it may."""


class Process:
    """One process. `progress` is 0 to 1, `seconds` how long it ran. With `load` it is born with scikit-learn."""

    def __init__(self, place: Place, task: Mapping[str, Any], timeout: float, *, load: bool) -> None:
        self._place = place
        self._task = task
        self._timeout = timeout
        self._load = load
        self._link: Link | None = None
        self.progress = 0.0
        self.seconds = 0.0

    def take_lines(self) -> list[str]:
        """What it printed since this was asked last."""
        return self._link.take_lines() if self._link else []

    def run(
        self,
        watch: Callable[[], None],
        model: Iterable[bytes | memoryview] = (),
        sink: Callable[[bytes], None] = lambda _: None,
        ranges: Ranges = lambda _name, _offset, _length: (),
    ) -> dict[str, Any]:
        """Runs it to its end and returns its answer.

        Args:
            watch: called ten times a second; what it raises ends the process.
            model: pieces of the model that goes in.
            sink: takes the pieces of the file that comes out.
            ranges: what the process may ask for of tables that are kept in files.

        Raises ProcessKilled, ProcessTimeout, FolderFull, FrameBroken, and what `watch`, `model`, `sink` or `ranges`
        raises.
        """
        with self._place.start(watch, int(self._timeout) + _SPARE_SECONDS, load=self._load) as link:
            self._link = link
            began = time.monotonic()
            feed = _Feed(link, {**self._task, **link.around}, model, ranges)
            try:
                return self._follow(link, feed, watch, sink)
            finally:
                feed.close()
                self.seconds = time.monotonic() - began

    def _follow(
        self, link: Link, feed: "_Feed", watch: Callable[[], None], sink: Callable[[bytes], None]
    ) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout
        while True:
            watch()
            if feed.error:
                raise feed.error
            if time.monotonic() > deadline:
                raise ProcessTimeout
            came = link.receive(_TICK)
            if came is None:
                continue
            kind, body = came
            if kind == frames.DATA:
                sink(body)
            elif kind == frames.PROGRESS:
                self.progress = _share(frames.parse_json(body).get("done"))
            elif kind == frames.WANTED:
                feed.ask(frames.parse_json(body))
            elif kind == frames.RESULT:
                return frames.parse_json(body)
            else:
                raise FrameBroken("unknown")


class _Feed:
    """Gives a process its task, its model, and what it asks for: in a thread, because it takes these when it likes."""

    def __init__(
        self, link: Link, task: Mapping[str, Any], model: Iterable[bytes | memoryview], ranges: Ranges
    ) -> None:
        self._link = link
        self._task = task
        self._model = model
        self._ranges = ranges
        # One, for the process waits for its answer. None: there is nothing more to do.
        self._wanted: queue.Queue[tuple[str, int, int] | None] = queue.Queue(2)
        self.error: Exception | None = None
        threading.Thread(target=self._run, name="job-feed", daemon=True).start()

    def ask(self, request: Mapping[str, Any]) -> None:
        """Sends a range. Raises FrameBroken if it is none, or one more."""
        name, offset, length = (request.get(key) for key in ("table", "offset", "length"))
        if not (isinstance(name, str) and _is_count(offset) and _is_count(length) and length <= frames.MAX_RANGE):
            raise FrameBroken("no range")
        try:
            self._wanted.put_nowait((name, offset, length))
        except queue.Full:
            raise FrameBroken("too many ranges") from None

    def close(self) -> None:
        with suppress(queue.Full):
            self._wanted.put_nowait(None)

    def _run(self) -> None:
        try:
            self._link.send(frames.TASK, json.dumps(self._task, separators=(",", ":")).encode())
            self._send(self._model)
            while (wanted := self._wanted.get()) is not None:
                self._send(self._ranges(*wanted))
        except LinkClosed:
            pass  # it ended; what it has said about that is read elsewhere
        except Exception as error:  # the model or the table could not be read
            self.error = error

    def _send(self, pieces: Iterable[bytes | memoryview]) -> None:
        for piece in pieces:
            for start in range(0, len(piece), frames.PIECE):
                self._link.send(frames.DATA, piece[start : start + frames.PIECE])
        self._link.send(frames.END, b"")


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _share(value: object) -> float:
    return min(1.0, max(0.0, value)) if isinstance(value, float | int) else 0.0
