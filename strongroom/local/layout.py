"""The data directory of `strongroom up`: what lies where, and who may use it at a time."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strongroom.local.errors import StartError

# sockaddr_un has room for 108 bytes, the last of them zero (unix(7)).
_SOCKET_PATH_BYTES = 107
_SOCKETS_PREFIX = "strongroom-"
_LOG_BYTES = 16 << 20


@dataclass(frozen=True)
class Layout:
    """The files below one data directory. Folders are 0700, files 0600."""

    root: Path

    @property
    def admin_key(self) -> Path:
        """The administrator's API key."""
        return self.root / "admin.key"

    @property
    def root_key(self) -> Path:
        """32 random bytes in base64, which wrap every other key. Without them nothing can be read."""
        return self.root / "root.key"

    @property
    def kms(self) -> Path:
        """Other root keys and where they are, if somebody has written it."""
        return self.root / "kms.yaml"

    @property
    def identities(self) -> Path:
        """`<service>.pem` and `<service>.pub.pem`."""
        return self.root / "keys"

    @property
    def databases(self) -> Path:
        return self.root / "db"

    @property
    def run(self) -> Path:
        """What is true only while Strongroom runs."""
        return self.root / "run"

    @property
    def state(self) -> Path:
        return self.run / "state.json"

    @property
    def envoy_config(self) -> Path:
        return self.run / "envoy.yaml"

    @property
    def pki(self) -> Path:
        """Certificates, if `strongroom pki init` has made any."""
        return self.root / "pki"

    @property
    def tls(self) -> Path:
        """Certificates as the gateway reads them."""
        return self.run / "tls"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def create(self) -> None:
        """Makes the folders that are missing. Raises StartError."""
        try:
            for folder in (self.root, self.identities, self.databases, self.root / "weights", self.run, self.logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if folder.stat().st_mode & stat.S_IWOTH:
                    raise StartError(
                        f"Everybody may write to {folder}, so anybody could put keys of their own there; "
                        f"run: chmod 700 {folder}, or choose a folder inside of it."
                    )
        except OSError as error:
            raise StartError(f"The data directory {self.root} cannot be used: {error.strerror}.") from error

    @property
    def used(self) -> bool:
        """Whether there is data that only the keys of this directory can open."""
        return any(self.databases.iterdir())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps every other `strongroom up` out. The kernel releases the lock with the process, however it ends."""
        descriptor = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"Strongroom already runs on {self.root}; end it first, or use another --data-dir."
                raise StartError(message) from None
            yield
        finally:
            os.close(descriptor)

    def sockets(self) -> Path:
        """A folder for unix sockets: `run`, or a fresh one where the path of that is too long for them."""
        if len(os.fsencode(self.run / "admin.sock")) <= _SOCKET_PATH_BYTES:
            return self.run
        return Path(tempfile.mkdtemp(prefix=_SOCKETS_PREFIX))

    def owns(self, sockets: Path) -> bool:
        """Whether `sockets` made the folder, so that it can be removed."""
        ours = sockets.parent == Path(tempfile.gettempdir()) and sockets.name.startswith(_SOCKETS_PREFIX)
        return ours and sockets.is_dir() and sockets.stat().st_uid == os.getuid()

    def open_log(self, part: str) -> int:
        """A descriptor that appends to the part's log. A log over 16 MiB becomes `<part>.log.1` first."""
        log = self.logs / f"{part}.log"
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def write_private(file: Path, content: str) -> None:
    """Writes a file of mode 0600, durably and in one step: it is there with its whole content, or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    temporary.replace(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
