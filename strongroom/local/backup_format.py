"""The file of a backup: a tar archive, encrypted by age (https://age-encryption.org/v1) as it is written.

    strongroom-backup 1 <n>\\n   n bytes: the identity that opens the rest, encrypted to the passphrase, as an age file;
                                 0 if it is encrypted to recipients
    an age file                  the archive

age encrypts pieces of 64 KiB, each bound to its place and the last one marked, so nothing can be changed, exchanged or
cut off unseen. With a passphrase only who knows it can make a file that opens. The `age` program opens both parts.
"""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyrage

from strongroom.local.errors import BackupError

FORMAT = 1
_MAGIC = b"strongroom-backup"
_LINE_BYTES = 64
_PADDING_BYTES = 1 << 16
# An identity in a passphrase's age file is a tenth of it.
_IDENTITY_BYTES = 4096
# Whoever has the file guesses without limit, if slowly: age takes a second for a guess.
_MIN_PASSPHRASE = 12

_NOT_OPENED = "It does not open: another passphrase or identity, or a file that was changed or cut off."


@dataclass(frozen=True)
class Lock:
    """What a backup is encrypted to: a passphrase, or recipients (`age1…`, or an SSH public key)."""

    passphrase: str = field(default="", repr=False)
    recipients: Sequence[str] = ()

    def seal(self, source: BinaryIO, target: BinaryIO) -> None:
        """Encrypts all that `source` has. Raises BackupError."""
        head = b""
        try:
            if self.recipients:
                recipients = [_recipient(text) for text in self.recipients]
            else:
                if len(self.passphrase) < _MIN_PASSPHRASE:
                    raise BackupError(f"The passphrase needs {_MIN_PASSPHRASE} characters or more.")
                identity = pyrage.x25519.Identity.generate()
                head = pyrage.passphrase.encrypt(str(identity).encode(), self.passphrase)
                recipients = [identity.to_public()]
            target.write(b"%s %d %d\n%s" % (_MAGIC, FORMAT, len(head), head))
            pyrage.encrypt_io(source, target, recipients)
        except (pyrage.EncryptError, pyrage.RecipientError) as error:
            raise BackupError(f"It can't be encrypted ({type(error).__name__}).") from None


@dataclass(frozen=True)
class Key:
    """What opens a backup: its passphrase, or an identity (`AGE-SECRET-KEY-1…`, or an SSH private key)."""

    passphrase: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)

    def open(self, source: BinaryIO, target: BinaryIO) -> None:
        """Decrypts all that `source` has; what was written counts only when this returns.

        Raises BackupError, and BrokenPipeError if nobody reads what it writes.
        """
        head = _head(source)
        try:
            if head:
                if not self.passphrase:
                    raise BackupError("It was encrypted to a passphrase: give that one.")
                identity = pyrage.x25519.Identity.from_str(pyrage.passphrase.decrypt(head, self.passphrase).decode())
            elif not self.identity:
                raise BackupError("It was encrypted to a recipient: give the file with the identity.")
            else:
                identity = _identity(self.identity)
            pyrage.decrypt_io(source, target, [identity])
        except BrokenPipeError:
            raise
        except (pyrage.DecryptError, pyrage.IdentityError, OSError):
            raise BackupError(_NOT_OPENED) from None


def _head(source: BinaryIO) -> bytes:
    line = source.readline(_LINE_BYTES)
    words = line.split(b" ")
    if len(words) != 3 or words[0] != _MAGIC or not line.endswith(b"\n") or not words[2].strip().isdigit():
        raise BackupError("That is no backup of Strongroom.")
    if words[1] != b"%d" % FORMAT:
        raise BackupError(f"It has format {words[1].decode(errors='replace')}; this version reads {FORMAT}.")
    size = int(words[2])
    if size > _IDENTITY_BYTES:
        raise BackupError(_NOT_OPENED)
    return source.read(size)


def _recipient(text: str) -> object:
    try:
        return (
            pyrage.ssh.Recipient.from_str(text) if text.startswith("ssh-") else pyrage.x25519.Recipient.from_str(text)
        )
    except pyrage.RecipientError:
        raise BackupError("A recipient is `age1…` or an SSH public key; this is neither.") from None


def _identity(text: str) -> object:
    # As age-keygen writes it: comments, then the key.
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        if lines[:1] == ["-----BEGIN OPENSSH PRIVATE KEY-----"]:
            return pyrage.ssh.Identity.from_buffer(text.encode())
        return pyrage.x25519.Identity.from_str("".join(lines))
    except pyrage.IdentityError:
        raise BackupError("The identity is not `AGE-SECRET-KEY-1…` or an SSH private key without passphrase.") from None


def write(file: Path, lock: Lock, produce: Callable[[BinaryIO], None]) -> None:
    """Writes a backup of what `produce` writes: the file is there with all of it, 0600, or not at all."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as output, _Pipe(produce) as pipe:
            lock.seal(pipe.reader, output)
            pipe.finish()
            output.flush()
            os.fsync(output.fileno())
        _publish(part, file)
    finally:
        part.unlink(missing_ok=True)
    _sync(file.parent)


def _publish(part: Path, file: Path) -> None:
    """Gives a file its name, unless somebody has put another there meanwhile."""
    try:
        os.link(part, file)
    except FileExistsError:
        raise BackupError(f"{file} is there already: choose another name.") from None
    except OSError:  # no links on this file system
        if file.exists():
            raise BackupError(f"{file} is there already: choose another name.") from None
        part.replace(file)


def read(file: Path, key: Key, consume: Callable[[BinaryIO], None]) -> None:
    """Has `consume` read a backup; what it read counts only when this returns. Raises BackupError."""

    def consume_all(source: BinaryIO) -> None:
        consume(source)
        while source.read(_PADDING_BYTES):  # behind the end of an archive
            pass

    with file.open("rb") as source, _Pipe(consume_all, writing=False) as pipe:
        try:
            key.open(source, pipe.writer)
        except BrokenPipeError:
            pipe.finish()  # who read has stopped, and says why
            raise BackupError(_NOT_OPENED) from None
        pipe.finish()


class _Pipe:
    """A thread at the other end of a pipe: age asks for bytes or gives them, and so does tarfile."""

    def __init__(self, work: Callable[[BinaryIO], None], *, writing: bool = True) -> None:
        reading, written = os.pipe()
        self.reader: BinaryIO = os.fdopen(reading, "rb")
        self.writer: BinaryIO = os.fdopen(written, "wb")
        self._its: BinaryIO = self.writer if writing else self.reader
        self._mine: BinaryIO = self.reader if writing else self.writer
        self._error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name="backup", daemon=True)

    def __enter__(self) -> "_Pipe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._mine.close()
        self._thread.join()

    def finish(self) -> None:
        """Waits for the thread, and raises what it raised."""
        with suppress(BrokenPipeError):
            self._mine.close()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self._its:
                self._work(self._its)
        except BaseException as error:
            self._error = error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
