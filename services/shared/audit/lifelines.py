"""Which chains' processes live: each locks a file of its own, and the lock ends with the process, however it ends."""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_SUFFIX = ".alive"


class Lifelines:
    """The locks `DATA_DIR/audit/<service>-<chain>.alive` of the processes with this data folder."""

    def __init__(self, folder: Path, service: str) -> None:
        self._folder = folder
        self._prefix = f"{service}-"
        self._held: tuple[Path, int] | None = None

    def hold(self, chain: str) -> None:
        """Locks this process's own; a second time does nothing. Raises OSError."""
        if self._held is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = self._folder / f"{self._prefix}{chain}{_SUFFIX}"
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._held = file, descriptor

    def release(self) -> None:
        """Removes this process's own, after an orderly end."""
        if self._held is not None:
            file, descriptor = self._held
            self._held = None
            file.unlink(missing_ok=True)
            os.close(descriptor)

    def broken(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Chains whose processes died, each with what removes its file. Of several processes, one gets each chain."""
        for file in sorted(self._folder.glob(f"{self._prefix}*{_SUFFIX}")):
            descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                # It may have been removed while we opened it.
                if file.exists():
                    yield file.name.removeprefix(self._prefix).removesuffix(_SUFFIX), file.unlink
            finally:
                os.close(descriptor)
