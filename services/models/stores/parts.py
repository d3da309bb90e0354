"""Writes objects to stores that take them in parts: what is left of a crash is never an object, and no write is lost.

A store that answered a write and was not heard is asked again by its SDK, and then says that the object exists. So each
object carries the mark of its writer: who finds its own mark has succeeded.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeVar

from services.models.stores.store import ObjectExists, StoreUnavailable
from strongroom.chunking import Buffer

# Memory a writer holds, and the least that S3 takes is 5 MiB.
PART_BYTES = 8 * 1024 * 1024
# Objects listed with one request.
PAGE = 1000
# Pages of a listing, and how many of them in a row may be empty, as those of what was deleted lately are.
MOST_PAGES = 100_000
_MOST_EMPTY = 1000
# The name of the mark among the metadata of an object.
MARK = "strongroomwriter"


@dataclass(frozen=True)
class Patience:
    """How long a store may take: seconds to connect, seconds of silence, and attempts before it counts as down."""

    connect: float = 5.0
    silence: float = 30.0
    attempts: int = 4


USUAL = Patience()


T = TypeVar("T")


def entries(pages: Iterable[Iterable[T]], name: Callable[[T], object]) -> Iterator[T]:
    """What a listing has. StoreUnavailable where it does not end: a page that comes twice, or pages without end."""
    begun: set[object] = set()
    empty = 0
    for number, page in enumerate(pages):
        listed = list(page)
        empty = 0 if listed else empty + 1
        first = name(listed[0]) if listed else number
        if number >= MOST_PAGES or empty > _MOST_EMPTY or first in begun:
            raise StoreUnavailable("The store's list does not end: see what is wrong with it.")
        begun.add(first)
        yield from listed


@contextmanager
def understood() -> Iterator[None]:
    """What the store says of an object has a size and a time, or is no answer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StoreUnavailable("The store lists something that is no object.") from None


class Conflict(Exception):
    """The store refuses a write because of what is there; perhaps this very write, whose answer was lost."""


class Upload(Protocol):
    """One object on its way into a store."""

    def send(self, part: bytes) -> None:
        """Takes the next part: PART_BYTES, the last one less."""

    def finish(self) -> None:
        """Makes an object of the parts, at once. Conflict if there may be one already."""

    def put(self, data: bytes) -> None:
        """Makes an object at once, instead of `send` and `finish`. Conflict if there is one already."""

    def abandon(self) -> None:
        """Removes what is left of the parts, as far as it can, and never an object."""

    def winner(self) -> str | None:
        """The mark of the object that has this one's key; None if there is no object."""


class PartWriter:
    """Writes one object from its beginning to its end. One thread at a time.

    Args:
        begin: makes the upload; it gets the mark that the object shall carry.
    """

    def __init__(self, key: str, begin: Callable[[str], Upload]) -> None:
        self._key = key
        self._mark = secrets.token_hex(16)
        self._upload = begin(self._mark)
        self._waiting = bytearray()
        self._sent = False
        self._open = True

    def append(self, data: Buffer) -> None:
        """Takes the next bytes and sends what makes whole parts."""
        self._check_open()
        self._waiting += data
        while len(self._waiting) >= PART_BYTES:
            self._send(PART_BYTES)

    def commit(self) -> None:
        """Makes the object durable and visible. ObjectExists if another was faster. Closes the writer even so."""
        self._check_open()
        try:
            if self._sent and self._waiting:
                self._send(len(self._waiting))
            try:
                if self._sent:
                    self._upload.finish()
                else:
                    self._upload.put(bytes(self._waiting))
            except Conflict:
                self._settle()
        finally:
            self.discard()

    def discard(self) -> None:
        """Removes what was sent; does nothing after `commit`, or a second time."""
        if self._open:
            self._open = False
            self._waiting.clear()
            if self._sent:
                self._upload.abandon()

    def _send(self, length: int) -> None:
        with memoryview(self._waiting) as waiting:
            part = bytes(waiting[:length])
        del self._waiting[:length]
        self._sent = True  # also if it fails: nobody knows how much of it arrived
        try:
            self._upload.send(part)
        except Conflict:
            raise self._lost() from None

    def _settle(self) -> None:
        match self._upload.winner():
            case self._mark:
                return
            case None:
                raise self._lost()
            case _:
                raise ObjectExists("The store has this object already.", key=self._key)

    def _lost(self) -> StoreUnavailable:
        return StoreUnavailable("What was written is no longer in the store: write it again.", key=self._key)

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError("the writer is closed")

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()
