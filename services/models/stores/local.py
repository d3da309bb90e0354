"""Objects on a local disk: complete and durable, or absent.

An object is written under a temporary name, flushed, linked to its own name and its folder flushed: whoever sees it
sees all of it, now and after a power failure. `link` refuses a name that exists, so of several writers one wins and no
object ever changes.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from services.models.stores.store import (
    PART,
    ObjectExists,
    ObjectNotFound,
    StoredObject,
    StoreFull,
    StoreUnavailable,
    key_parts,
)
from strongroom.chunking import Buffer

_TEMPORARY = ".tmp"  # no key begins with a dot
_NAME = re.compile(r"[0-9a-f]{32}")  # what is named otherwise there is not ours
# Nothing is followed: a link in the store is not ours, and is an error (ELOOP, ENOTDIR).
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESERVED = 16 * 1024 * 1024
# No space, no quota, and larger than a file may be.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalStore:
    """Objects below a folder, which is made if it is not there; files 0600, folders 0700."""

    def __init__(self, root: Path) -> None:
        self._root = root
        with _translated():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._folder([_TEMPORARY], create=True):
                pass

    def create(self, key: str) -> "LocalWriter":
        """Begins an object, unseen until it is committed. A context manager: leaving it uncommitted discards."""
        key_parts(key)
        name = os.urandom(16).hex()
        with _translated(), self._folder([_TEMPORARY]) as folder:
            return LocalWriter(self, key, name, _open_direct(name, folder))

    def put(self, key: str, data: Buffer) -> None:
        """Stores an object at once. ObjectExists if there is one already."""
        with self.create(key) as writer:
            writer.append(data)
            writer.commit()

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Reads a range of an object, all of it by default; shorter only where the object ends. ObjectNotFound."""
        with _translated(), self._opened(key) as descriptor:
            left = os.fstat(descriptor).st_size - offset
            left = max(0, left if length is None else min(left, length))
            data = os.pread(descriptor, left, offset)
            while len(data) < left and (more := os.pread(descriptor, left - len(data), offset + len(data))):
                data += more  # Linux reads at most 2 GiB at a time
            return data

    def size(self, key: str) -> int:
        """Bytes of an object. ObjectNotFound."""
        with _translated(), self._opened(key) as descriptor:
            return os.fstat(descriptor).st_size

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects in a folder such as `packs/` and below, in no order; all by default."""
        if prefix and not prefix.endswith("/"):
            raise ValueError("a prefix names a folder and ends in /")
        parts = key_parts(prefix[:-1]) if prefix else []
        with _translated():
            self._check_there()
            with suppress(FileNotFoundError), self._folder(parts) as folder:
                yield from _walk(folder, prefix)

    def delete(self, key: str) -> bool:
        """Removes an object, durably; False if there is none."""
        *folders, name = key_parts(key)
        with _translated():
            try:
                with self._folder(folders) as folder:
                    os.unlink(name, dir_fd=folder)
                    os.fsync(folder)
            except FileNotFoundError:
                self._check_there()
                return False
        return True

    def unfinished(self) -> Iterator[StoredObject]:
        """What unfinished writers hold, and what crashed ones left; their age tells which."""
        with _translated(), self._folder([_TEMPORARY]) as folder:
            yield from (found for found in _walk(folder, "") if _NAME.fullmatch(found.key))

    def discard_unfinished(self, key: str) -> bool:
        """Removes one of `unfinished`; False if it is gone already."""
        (name,) = key_parts(key)
        with _translated():
            try:
                with self._folder([_TEMPORARY]) as folder:
                    os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                self._check_there()
                return False
        return True

    def _publish(self, temporary: str, key: str) -> None:
        """Gives a flushed temporary its key as well, durably. ObjectExists."""
        *folders, name = key_parts(key)
        with self._folder([_TEMPORARY]) as source, self._folder(folders, create=True) as target:
            try:
                os.link(temporary, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
            except FileExistsError:
                raise ObjectExists("The store has this object already.", key=key) from None
            os.fsync(target)

    def _check_there(self) -> None:
        """Raises OSError if the store itself is gone, as on a disk that is not mounted: its objects are not."""
        with self._folder([_TEMPORARY]):
            pass

    @contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        *folders, name = key_parts(key)
        try:
            with self._folder(folders) as folder:
                descriptor = os.open(name, _READ, dir_fd=folder)
        except FileNotFoundError:
            self._check_there()
            raise ObjectNotFound("The store has no such object.", key=key) from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _folder(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """A descriptor of a folder below the root, walked to without following links."""
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, mode=0o700, dir_fd=descriptor)
                    os.fsync(descriptor)  # also if another made it: it may not have come so far
                below = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)


class LocalWriter:
    """Writes one object from its beginning to its end. One thread at a time."""

    def __init__(self, store: LocalStore, key: str, temporary: str, descriptor: int) -> None:
        self._store = store
        self._key = key
        self._temporary = temporary
        self._descriptor: int | None = descriptor
        self._size = 0
        self._reserved = 0

    def append(self, data: Buffer) -> None:
        """Writes the next bytes.

        Past the page cache, which halves the cost, as long as each piece begins on a page of memory and is a multiple
        of 4096 bytes long (`open(2)`, O_DIRECT); from the first that does not, through it.
        """
        if self._descriptor is None:
            raise ValueError("the writer is closed")
        with _translated():
            self._append(self._descriptor, memoryview(data).cast("B"))

    def commit(self) -> None:
        """Makes the object durable, then visible. ObjectExists if another was faster. Closes the writer even so."""
        try:
            if self._descriptor is None:
                raise ValueError("the writer is closed")
            with _translated():
                if self._reserved > self._size:
                    os.ftruncate(self._descriptor, self._size)
                os.fsync(self._descriptor)
                self._store._publish(self._temporary, self._key)
        finally:
            self.discard()

    def discard(self) -> None:
        """Removes what was written; does nothing after `commit`, or a second time."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            # The disk may fail; what is left is among the unfinished, and is collected by its age.
            with suppress(StoreUnavailable):
                self._store.discard_unfinished(self._temporary)

    def _append(self, descriptor: int, view: memoryview) -> None:
        if len(view) * 16 >= _RESERVED and self._size + len(view) > self._reserved:
            self._reserve(descriptor)
        while view:
            try:
                written = os.pwrite(descriptor, view, self._size)
            except OSError as error:
                if error.errno != errno.EINVAL or not _make_buffered(descriptor):
                    raise
                continue
            self._size += written
            view = view[written:]

    def _reserve(self, descriptor: int) -> None:
        """Takes space ahead: large objects written side by side stay in one piece, and a full disk says so early."""
        try:
            os.posix_fallocate(descriptor, self._reserved, _RESERVED)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot
                raise
        self._reserved += _RESERVED

    def __enter__(self) -> "LocalWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


@contextmanager
def _translated() -> Iterator[None]:
    """The operating system's errors as ours; without paths, which are for the log of the service alone."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "UNKNOWN")
        if error.errno in _FULL:
            raise StoreFull("The disk of the weights is full: make room, then try again.", code=name) from error
        message = f"The disk of the weights fails ({name}): see whether it is mounted, sound and may be written."
        raise StoreUnavailable(message, code=name) from error


def _open_direct(name: str, folder: int) -> int:
    try:
        return os.open(name, _CREATE | os.O_DIRECT, mode=0o600, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without O_DIRECT, which may have left the name behind
            raise
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    return os.open(name, _CREATE, mode=0o600, dir_fd=folder)


def _make_buffered(descriptor: int) -> bool:
    """Turns O_DIRECT off; False if it is off already."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return bool(flags & os.O_DIRECT)


def _walk(folder: int, prefix: str) -> Iterator[StoredObject]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not PART.fullmatch(entry.name):
                continue
            with suppress(FileNotFoundError):  # deleted meanwhile
                if entry.is_file(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    yield StoredObject(prefix + entry.name, found.st_size, found.st_mtime)
                elif entry.is_dir(follow_symlinks=False):
                    below = os.open(entry.name, _FOLDER, dir_fd=folder)
                    try:
                        yield from _walk(below, f"{prefix}{entry.name}/")
                    finally:
                        os.close(below)
