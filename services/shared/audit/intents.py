"""What processes are about to do: a lock that lives as long as its process, and a file of what it began.

A change is made in one transaction, its event is written in another. The intent, written before both, is what is left
of a change whose process was killed between them.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from services.shared.audit.batches import Batches
from services.shared.audit.event import Event

_ALIVE, _INTENTS = ".alive", ".intents"
# A file of this size is written anew with what is not settled yet.
_MAX_BYTES = 1 << 20

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Intent:
    """What would be an event if it were over, and the sequence that its chain had reached."""

    event: Event
    after: int

    def line(self) -> bytes:
        return json.dumps({"after": self.after, "event": asdict(self.event)}, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> "Intent | None":
        """None for a line that a crash cut short: what it told of had not begun."""
        try:
            columns = json.loads(line)
            return cls(Event(**columns["event"]), int(columns["after"]))
        except (ValueError, KeyError, TypeError):
            return None


class Intents:
    """Those of this process, in `DATA_DIR/audit/<service>-<chain>.intents`, beside its lock."""

    def __init__(self, folder: Path, service: str) -> None:
        self._folder = folder
        self._prefix = f"{service}-"
        self._lock_descriptor = -1
        self._alive = self._file = folder
        self._descriptor = -1
        self._bytes = 0
        self._open: dict[int, Intent] = {}
        self._changing = threading.Lock()
        self._batches = Batches(self._append)

    def hold(self, chain: str) -> None:
        """Locks this process's own; a second time does nothing. Raises OSError."""
        if self._lock_descriptor < 0:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._alive = self._folder / f"{self._prefix}{chain}{_ALIVE}"
            self._file = self._alive.with_suffix(_INTENTS)
            self._descriptor = _open(self._file, os.O_APPEND)
            self._lock_descriptor = _open(self._alive)
            fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX)

    def release(self) -> None:
        """Removes both, after an orderly end; what some call has not settled yet is left to the next process."""
        if self._lock_descriptor >= 0:
            with self._changing:
                is_settled = not self._open
            if is_settled:
                self._file.unlink(missing_ok=True)
                self._alive.unlink(missing_ok=True)
            os.close(self._descriptor)
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def begin(self, intent: Intent) -> bool:
        """Returns when the intent is on disk: whether it is. `settle` it whatever becomes of it."""
        with self._changing:
            self._open[id(intent)] = intent
        return self._batches.submit([intent])

    def settle(self, intent: Intent) -> None:
        """Forgets the intent: its event is written, or there is nothing to tell."""
        with self._changing:
            self._open.pop(id(intent), None)

    def _append(self, intents: list[Intent]) -> bool:
        lines = b"".join(intent.line() for intent in intents)
        try:
            if self._bytes > _MAX_BYTES:
                self._compact()
            written = os.write(self._descriptor, lines)
            os.fdatasync(self._descriptor)
        except OSError as error:
            _log.error("intents not written", error=str(error))
            written = 0
        # Half a line would spoil the next one: then the file is written anew.
        self._bytes = self._bytes + written if written == len(lines) else _MAX_BYTES + 1
        return written == len(lines)

    def _compact(self) -> None:
        with self._changing:
            left = b"".join(intent.line() for intent in self._open.values())
        fresh = self._file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = _open(fresh, os.O_APPEND)
        os.write(descriptor, left)
        os.fdatasync(descriptor)
        fresh.rename(self._file)
        os.close(self._descriptor)
        self._descriptor, self._bytes = descriptor, 0

    def broken(self) -> Iterator[tuple[str, list[Intent], Callable[[], None]]]:
        """Chains whose processes died, each with what they had begun, and with what forgets it.

        Of several processes that start, one gets each chain.
        """
        for file in sorted(self._folder.glob(f"{self._prefix}*{_ALIVE}")):
            descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                # It may have been removed while we opened it.
                if file.exists():
                    intents = file.with_suffix(_INTENTS)
                    lines = intents.read_bytes().splitlines() if intents.exists() else []

                    def forget(file: Path = file, intents: Path = intents) -> None:
                        intents.unlink(missing_ok=True)
                        file.unlink()

                    chain = file.name.removeprefix(self._prefix).removesuffix(_ALIVE)
                    yield chain, [intent for intent in map(Intent.parse, lines) if intent], forget
            finally:
                os.close(descriptor)


def _open(file: Path, flags: int = 0) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
