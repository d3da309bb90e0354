"""A trained model on its way from its process into the store."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from services.models.jobs.queue import LeaseLost
from services.models.runners.frames import FrameBroken
from services.models.versions import Version

# Pieces that wait to be stored: of a megabyte.
_WAITING = 4
# Seconds between two looks at whether to go on.
_TICK = 0.1


class ModelStream:
    """Stores a model while it comes out of its process: in a thread of its own, which the first piece starts.

    Args:
        watch: called again and again while the store is waited for, which may take longer than a lease; what it raises
            ends the storing.
    """

    def __init__(
        self, store: Callable[[Iterator[bytes], Callable[[], None]], Version], watch: Callable[[], None]
    ) -> None:
        self._watch = watch
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._aborted = False
        self._check: Callable[[], None] = lambda: None
        self._version: Version | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(store,), name="job-model", daemon=True)

    def put(self, piece: bytes) -> None:
        """Raises what storing raised, or `watch`."""
        if self._thread.ident is None:
            self._thread.start()
        while True:
            if self._error is not None:
                raise self._error
            try:
                return self._pieces.put(piece, timeout=_TICK)
            except queue.Full:
                self._watch()

    def finish(self, check: Callable[[], None]) -> Version:
        """The version, if `check` does not raise at the last moment. Raises what storing raised, or `watch`."""
        if self._thread.ident is None:
            raise FrameBroken("no model")
        self._check = check
        try:
            self._put_end(self._watch)
            while self._thread.is_alive():
                self._thread.join(_TICK)
                self._watch()
        except BaseException:
            self.abort()
            if self._version is None:
                raise
            # It was too late for that: what becomes of the version, the end of its job decides.
        if self._error is not None:
            raise self._error
        assert self._version is not None
        return self._version

    def abort(self) -> None:
        """Nothing of it is kept; a second time does nothing."""
        self._aborted = True
        if self._thread.is_alive():
            self._put_end()
            self._thread.join()

    def _put_end(self, watch: Callable[[], None] = lambda: None) -> None:
        while self._thread.is_alive():
            with suppress(queue.Full):
                self._pieces.put(None, timeout=_TICK)
                return
            watch()

    def _run(self, store: Callable[[Iterator[bytes], Callable[[], None]], Version]) -> None:
        def still_wanted() -> None:
            if self._aborted:
                raise LeaseLost
            self._check()

        try:
            self._version = store(iter(self._pieces.get, None), still_wanted)
        except BaseException as error:
            self._error = error
