"""How a job's process is spoken to, wherever it runs: on this machine (`local_processes`), or on a cluster
(`ray_processes`)."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class ProcessKilled(Exception):
    """It ended without an answer: killed, by whomever."""


class FolderFull(Exception):
    """It has written more files than it may."""


class LinkClosed(Exception):
    """Nobody reads any more what is sent: what the process has said about that is received."""


@dataclass(frozen=True)
class ProcessSettings:
    """What jobs' processes may use: bytes of address space and of files. `hidden` are this installation's folders."""

    memory: int
    folder_bytes: int
    isolated: bool
    hidden: tuple[Path, ...]


class Link(Protocol):
    """A process that has been born. One thread sends, another one receives."""

    # What the place adds to the process's task: its limits, and its folder.
    around: Mapping[str, Any]

    def send(self, kind: bytes, body: bytes | memoryview) -> None:
        """Sends a frame (`runners.frames`), once the process has taken those before. Raises LinkClosed."""
        ...

    def receive(self, seconds: float) -> tuple[bytes, bytes] | None:
        """The next frame, or None if none comes for so long. Raises ProcessKilled, FolderFull, FrameBroken."""
        ...

    def take_lines(self) -> list[str]:
        """What the process printed since this was asked last."""
        ...


class Place(Protocol):
    """Where processes are born."""

    def start(self, watch: Callable[[], None], seconds: int, *, load: bool) -> AbstractContextManager[Link]:
        """A process that ends with the block; with `load` it is born with scikit-learn.

        Args:
            watch: called while it is waited for; what it raises ends the waiting.
            seconds: of processor time that it may use.

        Raises ProcessKilled, and what `watch` raises; Unavailable if there can be none now.
        """
        ...

    def close(self) -> None:
        """Ends all that is left."""
        ...
