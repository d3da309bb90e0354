"""Several stores as one: what is written goes to the primary and is copied to the replicas; reads fall over.

    write ──► note what the replicas will lack ──► primary        copied by `synchronize`, as often as it takes
    read  ──► preferred store ──► primary ──► replicas            those that failed just now last
    delete ─► all of them

No copy is lost to a crash: that the replicas lack an object is written down before the object is anywhere.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

import structlog

from services.models.copy_journal import CopyJournal
from services.models.pack_cache import PackCache
from services.models.stores.store import ObjectNotFound, ObjectWriter, Store, StoredObject, StoreUnavailable
from services.shared.errors import DataLoss, InvalidArgument
from strongroom.chunking import Buffer

T = TypeVar("T")

# Seconds for which a store that failed is asked last: its timeout is not waited for at every chunk of a file.
_AVOIDED = 15.0
# What people call the kinds of stores.
_PROVIDERS = {"aws": "s3", "gcp": "gcs"}

_log = structlog.get_logger()


class StoreUnknown(InvalidArgument):
    """There is no store of that name."""

    reason = "STORE_UNKNOWN"


@dataclass(frozen=True)
class Member:
    """A store among others. `kind` is local, s3, gcs or azure."""

    name: str
    kind: str
    store: Store = field(repr=False)


class Failures:
    """Which stores failed lately, for the threads of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._avoided_until: dict[str, float] = {}

    def note(self, name: str) -> None:
        self._avoided_until[name] = self._clock() + _AVOIDED

    def forget(self, name: str) -> None:
        self._avoided_until.pop(name, None)

    def last(self, members: Sequence[Member]) -> list[Member]:
        """The same stores, those that failed lately behind the others."""
        now = self._clock()
        return sorted(members, key=lambda member: self._avoided_until.get(member.name, 0.0) > now)


class ReplicatedStore:
    """A store made of stores, the primary first. With one it does what that does."""

    def __init__(
        self,
        members: Sequence[Member],
        journal: CopyJournal,
        cache: PackCache | None = None,
        failures: Failures | None = None,
        preferred: str = "",
    ) -> None:
        self.members = tuple(members)
        self.primary = self.members[0]
        self.replicas = self.members[1:]
        self._journal = journal
        self._cache = cache
        self._failures = failures or Failures()
        # Sorting is stable: the preferred one, then the primary, then the others as they are listed.
        self._order = sorted(self.members, key=lambda member: member.name != preferred)

    def preferring(self, provider: str) -> "ReplicatedStore":
        """The same stores, of which reads ask this one first: a name, or aws, gcp, azure or local for its kind.

        Raises StoreUnknown.
        """
        chosen = self._member(provider).name if provider else ""
        return ReplicatedStore(self.members, self._journal, self._cache, self._failures, chosen)

    @property
    def uncached(self) -> "ReplicatedStore":
        """The same stores without the cache: what they have, not what they had."""
        return ReplicatedStore(self.members, self._journal, None, self._failures)

    def only(self, provider: str) -> "ReplicatedStore":
        """One of the stores, named as in `preferring`, without the others. Raises StoreUnknown."""
        return ReplicatedStore([self._member(provider)], self._journal, None, self._failures)

    def _member(self, provider: str) -> Member:
        kind = _PROVIDERS.get(provider, provider)
        named = [member for member in self.members if member.name == provider]
        found = named or [member for member in self.members if member.kind == kind]
        if not found:
            known = ", ".join(member.name for member in self.members)
            raise StoreUnknown(f"There is no such store here. There are: {known}.")
        return found[0]

    def create(self, key: str) -> ObjectWriter:
        """Begins an object in the primary; the replicas get theirs once it is committed."""
        writer = self.primary.store.create(key)
        return _NotingWriter(writer, lambda: self._note(key)) if self.replicas else writer

    def put(self, key: str, data: Buffer) -> None:
        self._note(key)
        self.primary.store.put(key, data)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        def fetch() -> bytes:
            return self._first(lambda store: store.read(key, offset, length))

        if self._cache is None or length is None or not key.startswith("packs/"):
            return fetch()
        return self._cache.read(key, offset, length, fetch)

    def size(self, key: str) -> int:
        return self._first(lambda store: store.size(key))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """What any of the stores has that answers, each object once. StoreUnavailable if none does."""
        seen: set[str] = set()
        failed = 0
        for member in self.members:
            try:
                for found in member.store.list(prefix):
                    if found.key not in seen:
                        seen.add(found.key)
                        yield found
            except StoreUnavailable as error:
                failed += 1
                self._failed(member, error)
        if failed == len(self.members):
            raise StoreUnavailable("No store answers. Try again.")

    def delete(self, key: str) -> bool:
        """Removes an object from every store. StoreUnavailable if one does not answer; the others have removed it."""
        found = False
        failed = []
        for member in self.members:
            try:
                found |= member.store.delete(key)
            except StoreUnavailable as error:
                self._failed(member, error)
                failed.append(member.name)
        if failed:
            raise StoreUnavailable(f"Not removed from {', '.join(failed)}: no answer. Try again.")
        if self._cache is not None:
            self._cache.drop(key)
        if self.replicas:
            self._journal.forget(key)
        return found

    def unfinished(self) -> Iterator[StoredObject]:
        """What unfinished writers hold in any store that answers; keys begin with the store's name and a slash."""
        for member in self.members:
            try:
                for found in member.store.unfinished():
                    yield StoredObject(f"{member.name}/{found.key}", found.size, found.modified)
            except StoreUnavailable as error:
                self._failed(member, error)

    def discard_unfinished(self, key: str) -> bool:
        name, _, own_key = key.partition("/")
        return any(member.store.discard_unfinished(own_key) for member in self.members if member.name == name)

    def sound(self, key: str, attempt: Callable[[Store], T]) -> T:
        """What `attempt` makes of the object, from another copy where it raises DataLoss.

        A copy that is damaged while another is not will be replaced. Raises DataLoss if all are damaged.
        """
        try:
            return attempt(self)
        except DataLoss:
            if self._cache is not None:
                self._cache.drop(key)
            elif not self.replicas:
                raise
            damaged: tuple[str, ...] = ()
            for member in self._failures.last(self._order):
                with suppress(ObjectNotFound, StoreUnavailable):
                    try:
                        found = attempt(member.store)
                    except DataLoss:
                        damaged = (*damaged, member.name)
                    else:
                        self._replace(key, damaged)
                        return found
            raise

    def _replace(self, key: str, damaged: Sequence[str]) -> None:
        if damaged:
            _log.warning("a copy is damaged and will be replaced", object=key, stores=damaged)
            self._journal.note(key, damaged, replaces=True)

    def _note(self, key: str) -> None:
        if self.replicas:
            self._journal.note(key, [member.name for member in self.replicas])

    def _first(self, ask: Callable[[Store], T]) -> T:
        """The answer of the first store that has one."""
        if not self.replicas:
            return ask(self.primary.store)
        missing: ObjectNotFound | None = None
        failure: StoreUnavailable | None = None
        for member in self._failures.last(self._order):
            try:
                answer = ask(member.store)
            except ObjectNotFound as error:
                missing = error
            except StoreUnavailable as error:
                self._failed(member, error)
                failure = error
            else:
                self._failures.forget(member.name)
                return answer
        # One that does not answer may have it.
        if failure is not None:
            raise StoreUnavailable("A store that may have this does not answer. Try again.") from failure
        assert missing is not None
        raise missing

    def _failed(self, member: Member, error: StoreUnavailable) -> None:
        self._failures.note(member.name)
        _log.warning("a store failed", store=member.name, error=error.message)


class _NotingWriter:
    """Writes down what the replicas will lack before the object becomes visible."""

    def __init__(self, writer: ObjectWriter, note: Callable[[], None]) -> None:
        self._writer = writer
        self._note = note

    def append(self, data: Buffer) -> None:
        self._writer.append(data)

    def commit(self) -> None:
        try:
            self._note()
            self._writer.commit()
        finally:
            self._writer.discard()

    def discard(self) -> None:
        self._writer.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()
